"""Measure the slowdown of decoding and choose the plan that meets the target.

Measured as a paired ratio: original and bundle decode the same prompt for the same forced number of tokens in turn,
A B A B, after a warm-up; the slowdown is the median of the ratios with a bootstrap interval.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from taylor_ops.config import Conversion, Latency
from taylor_ops.convert import convert_in_memory, expansions_of
from taylor_ops.errors import BadInput
from taylor_ops.models import DTYPES, load_original
from taylor_ops.original import Original
from taylor_ops.plan import Plan
from taylor_ops.records import Record

Progress = Callable[[int, int], None]

READ_SHARE = 0.55
"""Time to read a byte of stacked terms over the mean time per byte of the original, on two CPU cores in float32.

It only makes the first guess of the calibration; what is reported is measured.
"""

_RESAMPLES = 2000


class Trial(Record):
    """One measured candidate. seconds_*: raw samples, one a pair, each for the forced number of new tokens."""

    plan: Plan
    predicted: float
    slowdown: float
    ci95: tuple[float, float]
    seconds_original: tuple[float, ...]
    seconds_bundle: tuple[float, ...]


class LatencyRecord(Record):
    """The chosen plan and every trial on the way. reachable: predicted slowdowns of the cheapest and dearest plan."""

    plan: Plan
    target: float
    tolerance: float
    reachable: tuple[float, float]
    device: str
    threads: int
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    trials: tuple[Trial, ...]

    @property
    def achieved(self) -> Trial:
        """The trial of the chosen plan."""
        return self.trials[-1]


class Measure(Protocol):
    """Measures one plan: paired seconds of the original and of a candidate."""

    def __call__(self, plan: Plan) -> tuple[list[float], list[float]]: ...


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

    Raises `BadInput` when the target cannot be reached at the tolerance that was asked for.
    """
    source = Original(original)
    expansions = expansions_of(source, ranges_file, conversion)
    ladder = expansions.ladder()
    dtype = DTYPES[conversion.dtype]
    per_column = dtype.itemsize * int(source.config.hidden_size) / source.bytes(dtype)

    def predict(plan: Plan) -> float:
        return 1 + READ_SHARE * per_column * (plan.columns - plan.neurons)

    def measure(plan: Plan) -> tuple[list[float], list[float]]:
        first = load_original(original, conversion.dtype, device)
        second = convert_in_memory(load_original(original, conversion.dtype, device), source, expansions, plan)
        return paired_seconds(first, second, settings, seed)

    plan, trials = search(ladder, predict, measure, settings, seed, progress)
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
        trials=tuple(trials),
    )


def search(
    ladder: Sequence[Plan],
    predict: Callable[[Plan], float],
    measure: Measure,
    settings: Latency,
    seed: int,
    progress: Progress,
) -> tuple[Plan, list[Trial]]:
    """Measure plans of the ladder until one meets the target; returns it and all trials, its own last.

    The first guess comes from bytes alone, so that two runs on one machine start, and normally end, with the same
    plan. A guess that misses is corrected through the line from (no extra columns, slowdown 1) to what was measured.
    """
    target = settings.target_slowdown
    trials: list[Trial] = []
    tried: set[int] = set()
    estimate = predict
    for number in range(settings.max_trials):
        plan = min(ladder, key=lambda rung: abs(estimate(rung) - target))
        if plan.columns in tried:
            break
        tried.add(plan.columns)
        predicted = estimate(plan)
        trial = _trial(plan, predicted, *measure(plan), seed)
        trials.append(trial)
        progress(number + 1, settings.max_trials)
        if abs(trial.slowdown / target - 1) <= settings.tolerance:
            return plan, trials
        slope = (trial.slowdown - 1) / (plan.columns - plan.neurons)
        estimate = _line(slope)
    measured = [trial.slowdown for trial in trials]
    nearest = min(trials, key=lambda trial: abs(trial.slowdown / target - 1))
    least, most = sorted(estimate(rung) for rung in (ladder[0], ladder[-1]))
    if not least <= target <= most and not min(measured) <= target <= max(measured):
        raise BadInput(
            f"target slowdown {target:g} cannot be reached: {least:.2f} to {most:.2f} can, with every neuron protected",
            "set `latency.target_slowdown` inside, loosen `conversion.tolerance` or narrow `conversion.range_margin` "
            "for less, raise `conversion.max_order` for more",
        )
    raise BadInput(
        f"no plan within {settings.tolerance:.0%} of slowdown {target:g}: the nearest measured {nearest.slowdown:.2f} "
        f"(95 % interval {nearest.ci95[0]:.2f} to {nearest.ci95[1]:.2f})",
        "run on a quieter machine, raise `latency.pairs` and `latency.max_trials`, or widen `latency.tolerance`",
    )


def _line(slope: float) -> Callable[[Plan], float]:
    return lambda plan: 1 + slope * (plan.columns - plan.neurons)


def _trial(plan: Plan, predicted: float, original: list[float], bundle: list[float], seed: int) -> Trial:
    slowdown, interval = slowdown_of(original, bundle, seed)
    return Trial(
        plan=plan,
        predicted=predicted,
        slowdown=slowdown,
        ci95=interval,
        seconds_original=tuple(original),
        seconds_bundle=tuple(bundle),
    )


def slowdown_of(original: Sequence[float], bundle: Sequence[float], seed: int) -> tuple[float, tuple[float, float]]:
    """Median of the paired ratios bundle / original, and its bootstrap 95 % interval (percentile method)."""
    ratios = np.asarray(bundle) / np.asarray(original)
    draws = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))


def paired_seconds(first: Any, second: Any, settings: Latency, seed: int) -> tuple[list[float], list[float]]:
    """Seconds of decoding `new_tokens` tokens by both models in turn, `pairs` times, prefill left out."""
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.batch_size, settings.prompt_tokens)
    prompt = torch.randint(0, first.config.vocab_size, shape, generator=generator).to(first.device)
    for _ in range(settings.warmup):
        for model in (first, second):
            decode_seconds(model, prompt, settings.new_tokens)
    samples = [
        (decode_seconds(first, prompt, settings.new_tokens), decode_seconds(second, prompt, settings.new_tokens))
        for _ in range(settings.pairs)
    ]
    return [a for a, _ in samples], [b for _, b in samples]


def decode_seconds(model: Any, prompt: torch.Tensor, new_tokens: int) -> float:
    """Seconds that `model` takes for `new_tokens` greedy decode steps after the prompt [B, L] has been read."""
    with torch.inference_mode():
        state = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        token = state.logits[:, -1:].argmax(-1)
        clock = _Clock(prompt.device)
        for _ in range(new_tokens):
            state = model(input_ids=token, past_key_values=state.past_key_values, use_cache=True)
            token = state.logits[:, -1:].argmax(-1)
        return clock.seconds()


class _Clock:
    """CUDA events on a GPU, the monotonic clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        pair = range(2) if device.type == "cuda" else ()
        self._events = [torch.cuda.Event(enable_timing=True) for _ in pair]  # type: ignore[no-untyped-call]
        self._start = time.perf_counter()
        if self._events:
            self._events[0].record()

    def seconds(self) -> float:
        if not self._events:
            return time.perf_counter() - self._start
        self._events[1].record()
        torch.cuda.synchronize()
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3


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
