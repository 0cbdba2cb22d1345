"""Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it. No clock, no model.

A candidate is sampled in pairs until an interval for the median of its ratios lies inside the band around the target,
or apart from it; a machine on which neither happens within the budget is called noisy. Intervals that decide are order
statistics, by the sign test, and wider than for a single look at the samples, because there are many: over all looks a
candidate whose median ratio is not inside the band passes with a chance of at most 0.1 %, one that is inside is said to
miss with at most 5 %. That is exact for any noise that is independent from pair to pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, Protocol

import numpy as np

from taylor_ops.config import Latency
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.plan import Plan
from taylor_ops.records import Record

Progress = Callable[[int, int], None]
Sample = Callable[[], tuple[float, float]]
Verdict = Literal["met", "missed", "edge", "noisy"]

_RESAMPLES = 2000
# Over all looks. A false success would be repeated to users, a false miss costs one more candidate.
_FALSELY_MET = 0.001
_FALSELY_MISSED = 0.05
_CONFIDENCE = 0.95
_MORE_PAIRS = 4
# Two measurements nearer than this say little about the slope between them.
_FAR_APART = 0.05


class Pairs(Record):
    """A slowdown and its interval. seconds_*: raw samples, one a pair, each for the forced number of new tokens."""

    slowdown: float
    ci95: tuple[float, float]
    seconds_original: tuple[float, ...]
    seconds_bundle: tuple[float, ...]


class Trial(Pairs):
    """One measured candidate, and the slowdown that was predicted for it."""

    plan: Plan
    predicted: float


class Measure(Protocol):
    """Makes one candidate ready; what it returns gives paired seconds of the original and of the candidate."""

    def __call__(self, plan: Plan) -> Sample: ...


def search(
    ladder: Sequence[Plan],
    predict: Callable[[Plan], float],
    measure: Measure,
    settings: Latency,
    seed: int,
    progress: Progress,
) -> tuple[Plan, list[Trial]]:
    """Measure plans of the ladder until one meets the target; returns it and all trials, its own last.

    The first guess comes from `predict`. One that misses is corrected through the line from (no extra columns, slowdown
    1) to what was measured, later ones by the secant of the two last. Raises `BadInput` where the target is out of
    reach and `WorkFailed` where the machine is too noisy to tell.
    """
    target = settings.target_slowdown
    trials: list[Trial] = []
    estimate = predict
    for number in range(settings.max_trials):
        plan = min(ladder, key=lambda rung: abs(estimate(rung) - target))
        if any(trial.plan.columns == plan.columns for trial in trials):
            break
        original, bundle, verdict = judged_pairs(measure(plan), settings)
        slowdown, interval = slowdown_of(original, bundle, seed)
        trials.append(
            Trial(
                plan=plan,
                predicted=estimate(plan),
                slowdown=slowdown,
                ci95=interval,
                seconds_original=tuple(original),
                seconds_bundle=tuple(bundle),
            )
        )
        progress(number + 1, settings.max_trials)
        if verdict == "met":
            return plan, trials
        if verdict == "noisy":
            raise _noisy(trials[-1], settings)
        estimate = _corrected(trials)
    raise _refusal(ladder, estimate, trials, settings)


def judged_pairs(
    sample: Sample, settings: Latency, progress: Progress = lambda _done, _total: None
) -> tuple[list[float], list[float], Verdict]:
    """Paired seconds of original and candidate, as many as decide whether the slowdown meets the target.

    `edge` where the slowdown is known well after the most pairs, and is one end of the band as far as they tell;
    `noisy` where it is not known.
    """
    low, high = (settings.target_slowdown * (1 + side * settings.tolerance) for side in (-1, 1))
    meets, misses = (
        ranks_of_looks(settings.pairs, settings.max_pairs, error) for error in (_FALSELY_MET, _FALSELY_MISSED / 2)
    )
    original: list[float] = []
    bundle: list[float] = []
    for meeting, missing in zip(meets, misses, strict=True):
        for _ in range(_MORE_PAIRS if original else settings.pairs):
            first, second = sample()
            original.append(first)
            bundle.append(second)
            progress(len(original), settings.max_pairs)
        ratios = np.sort(np.asarray(bundle) / np.asarray(original))
        least, most = _ends(ratios, meeting)
        if low <= least and most <= high:
            return original, bundle, "met"
        least, most = _ends(ratios, missing)
        if most < low or high < least:
            return original, bundle, "missed"
    least, most = median_interval(ratios, _CONFIDENCE)
    # Narrow enough and yet on the edge of the band: a candidate nearer to its middle is needed.
    return original, bundle, "edge" if most - least <= (high - low) / 2 else "noisy"


def steady_pairs(sample: Sample, settings: Latency, progress: Progress) -> tuple[list[float], list[float]]:
    """Paired seconds, as many as give a 95 % interval no wider than a third of the band around the target.

    Raises `WorkFailed` where the most pairs that are allowed do not.
    """
    original, bundle, settled = timed_pairs(sample, settings, progress)
    if settled:
        return original, bundle
    raise WorkFailed(
        f"the machine is too noisy to measure a slowdown within {settings.tolerance:.0%}: {len(original)} pairs do not "
        "settle it",
        "end what else runs on this machine, then run again",
    )


def timed_pairs(
    sample: Sample, settings: Latency, progress: Progress = lambda _done, _total: None
) -> tuple[list[float], list[float], bool]:
    """Paired seconds as `steady_pairs` takes them, and whether they settle it: for figures that promise nothing."""
    original: list[float] = []
    bundle: list[float] = []
    widest = 2 * settings.tolerance / 3
    while len(original) < settings.max_pairs:
        first, second = sample()
        original.append(first)
        bundle.append(second)
        progress(len(original), settings.max_pairs)
        if len(original) >= settings.pairs:
            ratios = np.sort(np.asarray(bundle) / np.asarray(original))
            least, most = median_interval(ratios, _CONFIDENCE)
            if most - least <= widest * float(np.median(ratios)):
                return original, bundle, True
    return original, bundle, False


def median_interval(ordered: np.ndarray[tuple[int], np.dtype[np.float64]], confidence: float) -> tuple[float, float]:
    """Interval for the median of what `ordered` samples [n] are drawn from, right with at least `confidence`.

    By order statistics; all of the line where n samples are too few to say.
    """
    return _ends(ordered, _rank(len(ordered), confidence))


def _ends(ordered: np.ndarray[tuple[int], np.dtype[np.float64]], rank: int) -> tuple[float, float]:
    return (float(ordered[rank - 1]), float(ordered[-rank])) if rank else (-np.inf, np.inf)


@cache
def _rank(samples: int, confidence: float) -> int:
    """Largest k for which the k-th smallest and the k-th largest enclose the median with `confidence`; 0 if none."""
    outside, rank = 0, 0
    while 2 * (outside + math.comb(samples, rank)) <= (1 - confidence) * 2**samples:
        outside += math.comb(samples, rank)
        rank += 1
    return rank


@cache
def ranks_of_looks(first: int, most: int, error: float) -> tuple[int, ...]:
    """Which smallest and largest sample is an end of the interval for the median at each look; 0 for no interval yet.

    Looks are at `first` samples and at every `_MORE_PAIRS` more up to `most`. Where the median is at one end of a band,
    a look is wrong when fewer than its rank of the samples lie beyond that end. Ranks are the largest for which the
    chance that any look is wrong is at most `error`: half of it for the first, the rest in equal shares.
    """
    looks = range(first, most + 1, _MORE_PAIRS)
    # Chance that so many samples lie beyond and that no look was wrong.
    beyond = np.zeros(most + 1)
    beyond[0] = 1
    taken, spent, ranks = 0, 0.0, []
    for number, samples in enumerate(looks, start=1):
        for _ in range(samples - taken):
            beyond[1:] = (beyond[1:] + beyond[:-1]) / 2
            beyond[0] /= 2
        taken, rank = samples, 0
        allowed = error * (1 if len(looks) == 1 else (1 + (number - 1) / (len(looks) - 1)) / 2)
        while spent + beyond[rank] <= allowed:
            spent += beyond[rank]
            rank += 1
        beyond[:rank] = 0
        ranks.append(rank)
    return tuple(ranks)


def slowdown_of(original: Sequence[float], bundle: Sequence[float], seed: int) -> tuple[float, tuple[float, float]]:
    """Median of the paired ratios bundle / original, and its bootstrap 95 % interval (percentile method)."""
    ratios = np.asarray(bundle) / np.asarray(original)
    draws = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))


def _corrected(trials: Sequence[Trial]) -> Callable[[Plan], float]:
    """The slowdown of a plan by the line through what was measured."""
    last = trials[-1]
    extra = last.plan.columns - last.plan.neurons
    slope, apart = (last.slowdown - 1) / extra, 0
    if len(trials) > 1:
        apart = last.plan.columns - trials[-2].plan.columns
    if abs(apart) > _FAR_APART * extra:
        secant = (last.slowdown - trials[-2].slowdown) / apart
        # Beyond twice or half the slope from the origin it is noise that the secant follows.
        slope = min(max(secant, slope / 2), slope * 2)
    return lambda plan: last.slowdown + slope * (plan.columns - last.plan.columns)


def _noisy(trial: Trial, settings: Latency) -> WorkFailed:
    low, high = trial.ci95
    return WorkFailed(
        f"the machine is too noisy to calibrate: after {len(trial.seconds_bundle)} pairs the slowdown is "
        f"{trial.slowdown:.2f} with a 95 % interval of {low:.2f} to {high:.2f}, for a target of "
        f"{settings.target_slowdown:g} within {settings.tolerance:.0%}",
        "end what else runs on this machine, raise `latency.max_pairs` or `latency.new_tokens`, "
        "or widen `latency.tolerance`",
    )


def _refusal(
    ladder: Sequence[Plan], estimate: Callable[[Plan], float], trials: Sequence[Trial], settings: Latency
) -> ReleaseError:
    target = settings.target_slowdown
    measured = [trial.slowdown for trial in trials]
    nearest = min(trials, key=lambda trial: abs(trial.slowdown / target - 1))
    low, high = nearest.ci95
    if settings.columns is not None:
        return BadInput(
            f"the plan of `latency.columns` has a slowdown of {nearest.slowdown:.2f} (95 % interval {low:.2f} to "
            f"{high:.2f}), not surely {target:g} within {settings.tolerance:.0%}",
            "leave `latency.columns` out: what a device makes of a plan differs from machine to machine",
        )
    least, most = sorted(estimate(rung) for rung in (ladder[0], ladder[-1]))
    if not least <= target <= most and not min(measured) <= target <= max(measured):
        protected = min(rung.protected for rung in ladder)
        how = "with every neuron protected" if protected == 1 else f"with at least {protected:.1%} of neurons protected"
        return BadInput(
            f"target slowdown {target:g} cannot be reached: {least:.2f} to {most:.2f} can, {how}",
            "set `latency.target_slowdown` inside; for less loosen `conversion.tolerance`, narrow "
            "`conversion.range_margin` or lower `conversion.min_protected`, for more raise `conversion.max_order`",
        )
    if nearest.ci95[0] <= target * (1 + settings.tolerance) and target * (1 - settings.tolerance) <= nearest.ci95[1]:
        return _noisy(nearest, settings)
    return BadInput(
        f"no plan within {settings.tolerance:.0%} of slowdown {target:g}: the nearest measured {nearest.slowdown:.2f} "
        f"(95 % interval {nearest.ci95[0]:.2f} to {nearest.ci95[1]:.2f})",
        "run on a quieter machine, raise `latency.max_trials`, widen `latency.tolerance`, or leave `conversion.order` "
        "out: one order for all neurons makes large steps",
    )
