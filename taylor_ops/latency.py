"""Measure the slowdown of decoding and calibrate it.

Measured as a paired ratio: original and bundle decode after the same prompt the same forced number of tokens, one token
of each in turn, A B A B, after a warm-up; the slowdown is the median of the ratios with a bootstrap interval. Turns of
one token, because other users of a machine slow it down for seconds at a time: what is timed within milliseconds meets
the same machine. Weights larger than the caches are read anew at every step in either order.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from taylor_ops.calibration import Pairs, Progress, Sample, Trial, judged_pairs, search, slowdown_of
from taylor_ops.config import Conversion, DeviceTarget, Latency, Shape
from taylor_ops.convert import convert_in_memory, expansions_of
from taylor_ops.errors import BadInput, GateRejected, WorkFailed
from taylor_ops.models import DTYPES, device_named, load_original, room_for_weights
from taylor_ops.original import Original
from taylor_ops.plan import Plan
from taylor_ops.records import Record
from taylor_ops.threads import threads_restored, use_threads

READ_SHARE = 0.55
"""Time to read a byte of stacked terms over the mean time per byte of the original, on two CPU cores in float32.

It only makes the first guess of the calibration; what is reported is measured.
"""

# How far columns may cost less than predicted before memory for the candidates runs short.
_PREDICTION_OFF = 2


class ShapeSlowdown(Pairs):
    """The slowdown of the chosen plan at another batch size and prompt length than that of the target."""

    batch_size: int
    prompt_tokens: int


class DeviceSlowdown(Pairs):
    """The slowdown of the chosen plan on another device, within `tolerance` of a target of its own.

    layers_measured: as in `LatencyRecord`, on that device.
    """

    device: str
    layers_measured: int
    target: float
    tolerance: float


class LatencyRecord(Record):
    """The chosen plan and every trial on the way. reachable: predicted slowdowns of the cheapest and dearest plan.

    layers_measured of layers, in every trial: where memory did not hold the whole models, fewer were timed, and the
    seconds of the trials are those for all of them: the rest of a decode step but the head is taken to grow with the
    layers.
    """

    plan: Plan
    target: float
    tolerance: float
    reachable: tuple[float, float]
    device: str
    threads: int
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    layers: int
    layers_measured: int
    trials: tuple[Trial, ...]
    shapes: tuple[ShapeSlowdown, ...] = ()
    devices: tuple[DeviceSlowdown, ...] = ()

    @property
    def achieved(self) -> Trial:
        """The trial of the chosen plan."""
        return self.trials[-1]


def calibrate(
    original: Path,
    ranges_file: Path,
    conversion: Conversion,
    settings: Latency,
    device: torch.device,
    seed: int,
    progress: Progress,
) -> LatencyRecord:
    """Choose the plan whose measured slowdown meets the target; candidates are made in memory, nothing is written.

    Raises `BadInput` when the target cannot be reached at the tolerance that was asked for, or another device is not
    here, `GateRejected` when the plan misses the target of another device.
    """
    require_devices(settings)
    source = Original(original)
    expansions = expansions_of(source, ranges_file, conversion)
    ladder = _plans(expansions.ladder(), settings.columns)
    dtype = DTYPES[conversion.dtype]
    per_column = cost_of_a_column(source, dtype)

    def predict(plan: Plan) -> float:
        return 1 + per_column * (plan.columns - plan.neurons)

    layers = int(source.config.num_hidden_layers)
    # Chosen once: slowdowns of different parts of a model lie on no common line.
    roomy = _dearest_expected(ladder, predict, settings.target_slowdown)
    measured = layers_that_fit(source, roomy, dtype, device)
    kept: list[_Candidate] = []

    def candidate(plan: Plan, device: torch.device, fit: int) -> _Candidate:
        part = source if fit == layers else source.first_layers(fit)
        first, second = (load_original(original, conversion.dtype, device, part.config) for _ in range(2))
        kept.append(_Candidate(first, convert_in_memory(second, part, expansions, plan), seed, fit, layers / fit))
        return kept[0]

    def trial(plan: Plan) -> Sample:
        kept.clear()
        if plan.columns > roomy.columns and layers_that_fit(source, plan, dtype, device) < measured:
            raise BadInput(
                f"memory holds {measured} decoder layers of original and bundle with up to {roomy.columns:,} columns; "
                f"slowdown {settings.target_slowdown:g} needs about {plan.columns:,}",
                "end other programs, calibrate where there is more memory, or lower `latency.target_slowdown`",
            )
        return candidate(plan, device, measured).sample(settings)

    def elsewhere(there: torch.device) -> _Candidate:
        kept.clear()
        return candidate(plan, there, layers_that_fit(source, plan, dtype, there))

    plan, trials = search(ladder, predict, trial, settings, seed, progress)
    return LatencyRecord(
        plan=plan,
        target=settings.target_slowdown,
        tolerance=settings.tolerance,
        reachable=(predict(ladder[0]), predict(ladder[-1])),
        device=device_description(device),
        threads=torch.get_num_threads(),
        batch_size=settings.batch_size,
        prompt_tokens=settings.prompt_tokens,
        new_tokens=settings.new_tokens,
        layers=layers,
        layers_measured=measured,
        trials=tuple(trials),
        shapes=tuple(_at_shape(kept[0], settings, shape, seed) for shape in settings.also),
        devices=tuple(_on_device(elsewhere, settings, target, seed) for target in settings.devices),
    )


def require_devices(settings: Latency) -> None:
    """`BadInput` where a device that has a target of its own is not here."""
    for target in settings.devices:
        device_named(target.device)


def _dearest_expected(ladder: list[Plan], predict: Callable[[Plan], float], target: float) -> Plan:
    """The dearest plan that the search may want where the prediction is wrong by up to `_PREDICTION_OFF`."""
    most = 1 + _PREDICTION_OFF * (target - 1)
    return max((plan for plan in ladder if predict(plan) <= most), key=lambda plan: plan.columns, default=ladder[0])


def _plans(ladder: list[Plan], columns: int | None) -> list[Plan]:
    """The plans to choose from: all of the ladder, or the one that the config names by its columns."""
    if columns is None:
        return ladder
    chosen = [plan for plan in ladder if plan.columns == columns]
    if not chosen:
        near = min(ladder, key=lambda plan: abs(plan.columns - columns)).columns
        raise BadInput(
            f"`latency.columns` {columns:,}: no plan has so many; the nearest has {near:,}, and all have between "
            f"{ladder[0].columns:,} and {ladder[-1].columns:,}",
            "take the number from `coverage.columns` of the release record of the same inputs, or leave it out",
        )
    return chosen


@dataclass(frozen=True)
class _Candidate:
    """An original and its candidate, loaded: `layers` of them, the whole models `times` as many."""

    original: Any
    bundle: Any
    seed: int
    layers: int
    times: float

    def sample(self, settings: Latency) -> Sample:
        """What times pairs of both as `settings` say, for all layers."""
        sample = pairs_of(self.original, self.bundle, settings, self.seed)
        return sample if self.times == 1 else scaled(sample, self.original, settings, self.times)


def _at_shape(candidate: _Candidate, settings: Latency, shape: Shape, seed: int) -> ShapeSlowdown:
    there = settings.model_copy(update={"batch_size": shape.batch_size, "prompt_tokens": shape.prompt_tokens})
    sample = candidate.sample(there)
    pairs = [sample() for _ in range(settings.also_pairs)]
    original, bundle = zip(*pairs, strict=True)
    slowdown, ci95 = slowdown_of(original, bundle, seed)
    return ShapeSlowdown(
        slowdown=slowdown,
        ci95=ci95,
        seconds_original=original,
        seconds_bundle=bundle,
        batch_size=shape.batch_size,
        prompt_tokens=shape.prompt_tokens,
    )


def _on_device(
    candidate_on: Callable[[torch.device], _Candidate], settings: Latency, target: DeviceTarget, seed: int
) -> DeviceSlowdown:
    """Raises `GateRejected` where the slowdown there misses its target, `WorkFailed` where it cannot be told."""
    device = device_named(target.device)
    there = settings.model_copy(update={"target_slowdown": target.target_slowdown, "tolerance": target.tolerance})
    with threads_restored():
        if target.threads is not None:
            use_threads(target.threads)
        name = device_description(device)
        candidate = candidate_on(device)
        original, bundle, verdict = judged_pairs(candidate.sample(there), there)
    slowdown, ci95 = slowdown_of(original, bundle, seed)
    if verdict != "met":
        found = f"{slowdown:.2f} (95 % interval {ci95[0]:.2f} to {ci95[1]:.2f})"
        asked = f"{target.target_slowdown:g} within {target.tolerance:.0%}"
        if verdict == "noisy":
            raise WorkFailed(
                f"{name} is too noisy to tell whether the slowdown there is {asked}: after {len(original)} pairs it is "
                f"{found}",
                "end what else runs on this machine, raise `latency.max_pairs` or `latency.new_tokens`",
            )
        raise GateRejected(
            f"on {name} the slowdown is {found}, not surely {asked}",
            "set that entry of `latency.devices` to what the plan gives there, widen its tolerance, or move "
            "`latency.target_slowdown`",
        )
    return DeviceSlowdown(
        slowdown=slowdown,
        ci95=ci95,
        seconds_original=tuple(original),
        seconds_bundle=tuple(bundle),
        device=name,
        layers_measured=candidate.layers,
        target=target.target_slowdown,
        tolerance=target.tolerance,
    )


def cost_of_a_column(source: Original, dtype: torch.dtype) -> float:
    """What one column more than one a neuron adds to the slowdown, going by its bytes alone."""
    return READ_SHARE * dtype.itemsize * int(source.config.hidden_size) / source.bytes(dtype)


def pairs_of(first: Any, second: Any, settings: Latency, seed: int) -> Sample:
    """Warm both models up; each call of what is returned gives the seconds of both for `new_tokens` decode steps."""
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.batch_size, settings.prompt_tokens)
    prompt = torch.randint(0, first.config.vocab_size, shape, generator=generator).to(first.device)
    for _ in range(settings.warmup):
        decode_seconds((first, second), prompt, settings.new_tokens)

    def pair() -> tuple[float, float]:
        original, bundle = decode_seconds((first, second), prompt, settings.new_tokens)
        return original, bundle

    return pair


def layers_that_fit(source: Original, plan: Plan, dtype: torch.dtype, device: torch.device) -> int:
    """How many decoder layers of original and bundle fit into memory side by side: all, or a multiple of the period.

    Raises `BadInput` where not one period does.
    """
    layers, room, period = int(source.config.num_hidden_layers), room_for_weights(device), source.period
    both = 2 * source.layer_bytes(dtype) + dtype.itemsize * int(source.config.hidden_size) * plan.columns
    outside = 2 * (source.bytes(dtype) - source.layer_bytes(dtype))
    fit = (room - outside) * layers // both
    if fit >= layers:
        return layers
    if fit < period:
        least = "one decoder layer" if period == 1 else f"{period} decoder layers, which cannot be timed apart,"
        raise BadInput(
            f"{room / 1e9:.1f} GB of memory do not hold {least} of original and bundle and their embeddings "
            f"({(outside + both * period / layers) / 1e9:.1f} GB): no latency can be measured",
            "end other programs, or calibrate where there is more memory",
        )
    return fit // period * period


def scaled(sample: Sample, model: Any, settings: Latency, times: float) -> Sample:
    """Seconds for `times` as many layers as were timed: what a step takes beside the head grows with them."""
    head = model.get_output_embeddings()
    head_seconds(head, settings.batch_size, settings.new_tokens)

    def pair() -> tuple[float, float]:
        outside = head_seconds(head, settings.batch_size, settings.new_tokens)
        original, bundle = (outside + times * max(0.0, seconds - outside) for seconds in sample())
        return original, bundle

    return pair


def head_seconds(head: Any, batch_size: int, new_tokens: int) -> float:
    """Seconds that the output embeddings of a model alone take in `new_tokens` decode steps."""
    weight = head.weight
    hidden = torch.zeros(batch_size, 1, head.in_features, dtype=weight.dtype, device=weight.device)
    clock = _Clock(hidden.device)
    with torch.inference_mode(), clock.running():
        for _ in range(new_tokens):
            head(hidden)
    return clock.seconds()


def decode_seconds(models: Sequence[Any], prompt: torch.Tensor, new_tokens: int) -> list[float]:
    """Seconds that each model takes for `new_tokens` greedy decode steps after the prompt [B, L] has been read.

    Each in turn makes one step.
    """
    with torch.inference_mode():
        states = [model(input_ids=prompt, use_cache=True, logits_to_keep=1) for model in models]
        tokens = [state.logits[:, -1:].argmax(-1) for state in states]
        clocks = [_Clock(prompt.device) for _ in models]
        for _ in range(new_tokens):
            for turn, (model, clock) in enumerate(zip(models, clocks, strict=True)):
                with clock.running():
                    cache = states[turn].past_key_values
                    states[turn] = model(input_ids=tokens[turn], past_key_values=cache, use_cache=True)
                    tokens[turn] = states[turn].logits[:, -1:].argmax(-1)
        return [clock.seconds() for clock in clocks]


class _Clock:
    """CUDA events on the stream of a GPU, which need not be the current one; the monotonic clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        if device.type == "cuda":
            # What that GPU is still at belongs to no step.
            torch.cuda.synchronize(device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block takes; a GPU is not waited for."""
        if self._device.type == "cuda":
            begin = self._now()
            yield
            self._events.append((begin, self._now()))
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def seconds(self) -> float:
        """All that was counted."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        milliseconds = sum(float(begin.elapsed_time(end)) for begin, end in self._events)
        return self._seconds + milliseconds / 1e3

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


def device_description(device: torch.device) -> str:
    """The device in words for reports: the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"
