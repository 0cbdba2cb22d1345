"""Measure the slowdown of decoding and calibrate it.

Measured as a paired ratio: behind the same prompt original and bundle decode the same forced number of tokens, one of
each in turn, A B A B, after a warm-up; the slowdown is the median of the ratios with a bootstrap interval. Turns of one
token, because other users of a machine slow it down for seconds at a time: what is timed within milliseconds meets
the same machine. Weights larger than the caches are read anew at every step in either order.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from taylor_ops.calibration import Pairs, Sample, Trial, search
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.latency import Latency
from taylor_ops.conversion.in_memory import convert_in_memory
from taylor_ops.conversion.terms import expansions_of
from taylor_ops.cost import cost_of_a_column
from taylor_ops.disturbance import Undisturbed
from taylor_ops.errors import BadInput
from taylor_ops.machine.devices import DTYPES, device_description, room_for_weights
from taylor_ops.model.loading import load_original
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.reach import out_of_reach, remedy_out_of_reach
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import disk_errors_explained
from taylor_ops.storage.record import Record

_PREDICTION_OFF = 2
_CANDIDATE = ".candidate-"
# What a bundle may cost beside its bytes, over a decode step of the original: launching its kernels, on a fast GPU.
MOST_FIXED = 3


class ShapeSlowdown(Pairs):
    """The slowdown of the chosen plan at another batch size and prompt length than that of the target."""

    batch_size: int
    prompt_tokens: int


class DeviceSlowdown(Pairs):
    """The slowdown of the chosen plan on another device, and whether it is within `tolerance` of a target of its own.

    layers_measured: as in `LatencyRecord`, on that device.
    """

    device: str
    layers_measured: int
    target: float
    tolerance: float
    met: bool = True


class LatencyRecord(Record):
    """The chosen plan and every trial on the way. reachable: predicted slowdowns of the cheapest and dearest plan.

    layers_measured of layers, in every trial: where memory did not hold the whole models, fewer were timed, and the
    seconds of the trials are those for all of them: the rest of a decode step but the head is taken to grow with the
    layers. disturbed: pairs that were timed again because other programs had the processor. shapes, devices: what
    `transfer` finds of the plan elsewhere; empty before.
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
    disturbed: int = 0
    shapes: tuple[ShapeSlowdown, ...] = ()
    devices: tuple[DeviceSlowdown, ...] = ()

    @property
    def achieved(self) -> Trial:
        """The trial of the chosen plan."""
        return self.trials[-1]


class Candidates:
    """An original and, in turn, bundles of it under one plan or another, in memory: what is timed.

    Models are loaded once and series fitted once, for the first `layers` decoder layers. A candidate ends those series
    where its plan says. Its tensors are those that `convert` writes under that plan, number by number, and on the CPU
    lie in files, as those of a loaded bundle do: what is measured is what will be released. Files go to `scratch` and
    lose their names at once.
    """

    def __init__(
        self,
        source: Original,
        expansions: Expansions,
        dtype: str,
        device: torch.device,
        layers: int,
        seed: int,
        scratch: Path | None,
    ) -> None:
        every = int(source.config.num_hidden_layers)
        self.layers, self._times, self._seed = layers, every / layers, seed
        self._source = source if layers == every else source.first_layers(layers)
        self._expansions, self._scratch = expansions, scratch or Path(tempfile.gettempdir())
        for left in scratch.glob(f"{_CANDIDATE}*") if scratch else ():
            shutil.rmtree(left, ignore_errors=True)
        self._timed: list[Undisturbed] = []
        expansions.keep(mlp.path for mlp in self._source.mlps)
        self._original, self._bundle = (
            load_original(source.folder, dtype, device, self._source.config) for _ in range(2)
        )

    @property
    def disturbed(self) -> int:
        """How many pairs were timed again so far, because other programs had the processor."""
        return sum(sample.disturbed for sample in self._timed)

    def take(self, plan: Plan) -> None:
        """Put the candidate of `plan` in the place of the one before."""
        given = self._bundle, self._source, self._expansions, plan
        if self._bundle.device.type != "cpu":
            convert_in_memory(*given)
            return
        with (
            disk_errors_explained(self._scratch),
            tempfile.TemporaryDirectory(prefix=_CANDIDATE, dir=self._scratch) as folder,
        ):
            convert_in_memory(*given, mapped=Path(folder))

    def sample(self, settings: Latency) -> Sample:
        """What times pairs of the original and the candidate as `settings` say, for all layers."""
        sample = pairs_of(self._original, self._bundle, settings, self._seed)
        self._timed.append(sample)
        return sample if self._times == 1 else scaled(sample, self._original, settings, self._times)


def calibrate(
    original: Path,
    ranges_file: Path,
    conversion: Conversion,
    settings: Latency,
    device: torch.device,
    seed: int,
    progress: Progress,
    scratch: Path | None = None,
) -> LatencyRecord:
    """Choose the plan whose measured slowdown meets the target; nothing stays written.

    scratch: folder on a disk that holds a bundle, and of nobody else meanwhile: what a killed process left of a
    candidate there is removed. That of the system for temporary files where none is named.

    Raises `BadInput` when the target cannot be reached at the tolerance that was asked for, `WorkFailed` where the
    machine is too noisy to tell.
    """
    source = Original(original)
    expansions = expansions_of(source, ranges_file, conversion)
    ladder = _plans(expansions.ladder(), settings.columns)
    dtype = DTYPES[conversion.dtype]
    per_column = cost_of_a_column(source, dtype, device)

    def predict(plan: Plan) -> float:
        return 1 + per_column * (plan.columns - plan.neurons)

    reachable = predict(ladder[0]), predict(ladder[-1])
    # The search would begin with the dearest plan, which may take many gigabytes.
    if settings.columns is None and settings.target_slowdown > most_expected(reachable[1]) + MOST_FIXED:
        raise out_of_reach(settings, reachable, conversion, source.activation, by_bytes=True)
    # Chosen once: slowdowns of different parts of a model lie on no common line.
    roomy = _dearest_expected(ladder, predict, settings.target_slowdown)
    room = room_for_weights(device)
    measured = layers_that_fit(source, roomy, dtype, room)
    candidates = Candidates(source, expansions, conversion.dtype, device, measured, seed, scratch)

    def trial(plan: Plan) -> Sample:
        if plan.columns > roomy.columns and layers_that_fit(source, plan, dtype, room) < measured:
            raise BadInput(
                f"memory holds {measured} decoder layers of original and bundle with up to {roomy.columns:,} columns; "
                f"slowdown {settings.target_slowdown:g} needs about {plan.columns:,}",
                "end other programs, calibrate where there is more memory, or lower `latency.target_slowdown`",
            )
        candidates.take(plan)
        return candidates.sample(settings)

    remedy = remedy_out_of_reach(conversion, source.activation)
    plan, trials = search(ladder, predict, trial, settings, seed, progress, remedy)
    return LatencyRecord(
        plan=plan,
        target=settings.target_slowdown,
        tolerance=settings.tolerance,
        reachable=reachable,
        device=device_description(device),
        threads=torch.get_num_threads(),
        batch_size=settings.batch_size,
        prompt_tokens=settings.prompt_tokens,
        new_tokens=settings.new_tokens,
        layers=int(source.config.num_hidden_layers),
        layers_measured=measured,
        trials=tuple(trials),
        disturbed=candidates.disturbed,
    )


def most_expected(slowdown: float) -> float:
    """A slowdown as far above `slowdown` as predictions may be off.

    Of a target: the predicted one up to which there must be room for candidates, as columns may cost less than that.
    """
    return 1 + _PREDICTION_OFF * (slowdown - 1)


def _dearest_expected(ladder: list[Plan], predict: Callable[[Plan], float], target: float) -> Plan:
    """The dearest plan of the ladder for which there must be room."""
    wanted = (plan for plan in ladder if predict(plan) <= most_expected(target))
    return max(wanted, key=lambda plan: plan.columns, default=ladder[0])


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


def pairs_of(first: Any, second: Any, settings: Latency, seed: int) -> Undisturbed:
    """Let both models read a prompt and warm up; each call of what is returned gives the seconds of both behind it.

    They are those of `new_tokens` decode steps, A B A B, with no more than `disturbance` of them.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.batch_size, settings.prompt_tokens)
    prompt = torch.randint(0, first.config.vocab_size, shape, generator=generator).to(first.device)
    models = first, second
    read = [read_prompt(model, prompt) for model in models]

    def pair() -> tuple[float, float]:
        original, bundle = decode_seconds(models, [behind.again() for behind in read], settings.new_tokens)
        return original, bundle

    for _ in range(settings.warmup):
        pair()
    return Undisturbed(pair, settings.disturbance)


def bytes_side_by_side(source: Original, columns: float, dtype: torch.dtype, layers: int) -> int:
    """Bytes of `layers` decoder layers of original and bundle, and twice of all that is outside of layers.

    columns: stacked ones of all layers of the bundle.
    """
    every, inside = int(source.config.num_hidden_layers), source.layer_bytes(dtype)
    both = 2 * inside + dtype.itemsize * int(source.config.hidden_size) * int(columns)
    return 2 * (source.bytes(dtype) - inside) + -(-layers * both // every)


def layers_that_fit(source: Original, plan: Plan, dtype: torch.dtype, room: int) -> int:
    """How many decoder layers of original and bundle `room` bytes hold side by side: all, or a multiple of the period.

    Raises `BadInput` where not one period does.
    """
    layers, period = int(source.config.num_hidden_layers), source.period
    for fit in (layers, *reversed(range(period, layers, period))):
        if bytes_side_by_side(source, plan.columns, dtype, fit) <= room:
            return fit
    least = "one decoder layer" if period == 1 else f"{period} decoder layers, which cannot be timed apart,"
    raise BadInput(
        f"{room / 1e9:.1f} GB of memory do not hold {least} of original and bundle and their embeddings "
        f"({bytes_side_by_side(source, plan.columns, dtype, period) / 1e9:.1f} GB): no latency can be measured",
        "end other programs, or calibrate where there is more memory",
    )


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


@dataclass
class Behind:
    """Where a model is in its text: what it keeps of what it has read, and the token [B, 1] that it reads next."""

    cache: Any
    token: torch.Tensor

    def again(self) -> Behind:
        """The same place, to go on from once more."""
        with torch.inference_mode():
            return copy.deepcopy(self)


def read_prompt(model: Any, prompt: torch.Tensor) -> Behind:
    """Let a model read a prompt [B, L]."""
    with torch.inference_mode():
        state = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        return Behind(state.past_key_values, state.logits[:, -1:].argmax(-1))


def decode_seconds(models: Sequence[Any], read: Sequence[Behind], new_tokens: int) -> list[float]:
    """Seconds that each model takes for `new_tokens` greedy decode steps behind what it has `read`, which grow by them.

    Each in turn makes one step.
    """
    clocks = [_Clock(behind.token.device) for behind in read]
    with torch.inference_mode():
        for _ in range(new_tokens):
            for model, behind, clock in zip(models, read, clocks, strict=True):
                with clock.running():
                    state = model(input_ids=behind.token, past_key_values=behind.cache, use_cache=True)
                    behind.cache, behind.token = state.past_key_values, state.logits[:, -1:].argmax(-1)
    return [clock.seconds() for clock in clocks]


class _Clock:
    """CUDA events on the stream of a GPU, which need not be the current one; the monotonic clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block takes. A GPU has nothing else to do when it begins."""
        if self._device.type == "cuda":
            # Each token of a text waits for the one before. Else the steps of the original would queue up behind those
            # of the bundle, and be timed without the gaps that launching leaves in them.
            torch.cuda.synchronize(self._device)
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
