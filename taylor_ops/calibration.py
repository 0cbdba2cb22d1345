"""Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it. No clock, no model.

A candidate is sampled in pairs until an interval for the centre of its ratios lies inside the band around the target,
or apart from it, or until it lies off the middle and another plan nearer to it would be settled sooner; a machine on
which none of these happens within the budget is called noisy. Intervals that decide are wider than for a single look at
the samples, because there are many: over all looks a candidate that is not inside the band passes with a chance of at
most 0.1 %, one that is inside is said to miss with at most 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.looks import ends, looks, median_rank, ranks_of_looks, ratio_interval, walsh_averages
from taylor_ops.progress import Progress
from taylor_ops.series.plan import Plan
from taylor_ops.storage.record import Record

Sample = Callable[[], tuple[float, float]]
Verdict = Literal["met", "missed", "edge", "noisy"]

_RESAMPLES = 2000
_FEW = 15
# Over all looks. A false success would be repeated to users, a false miss costs one more candidate.
_FALSELY_MET = 0.001
_FALSELY_MISSED = 0.05
_CONFIDENCE = 0.95
_LOOKS_BEFORE_ANOTHER = 4
_LOOKS_BEFORE_HOPELESS = 8
# An interval that promises to be so many times too wide after the most pairs will not come out narrow enough.
_HOPELESS = 1.25
# Two measurements nearer than this say little about the slope between them.
_FAR_APART = 0.05
# Two slowdowns that differ by more than this part of them differ by more than noise: the slope between them is
# believed, however far from that of the line through no extra columns.
_CLEARLY_APART = 0.05
# Of its slowdown, how much a bundle is taken to owe to its columns at least.
_LEAST_RISE = 0.1


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
    remedy: str,
) -> tuple[Plan, list[Trial]]:
    """Measure plans of the ladder until one meets the target; returns it and all trials, its own last.

    The first guess comes from `predict`. One that misses is corrected through the line from (no extra columns, slowdown
    1) to what was measured, later ones by the secant through the trial whose slowdown is farthest from it. Raises
    `BadInput` where the target is out of reach, with `remedy` for what to do, and `WorkFailed` where the machine is too
    noisy to tell.
    """
    target, most = settings.target_slowdown, settings.max_trials
    trials: list[Trial] = []
    seen: list[tuple[Plan, float]] = []
    left: list[Plan] = []
    estimate = predict

    def nearest(estimated: Callable[[Plan], float]) -> Plan:
        return min(ladder, key=lambda rung: abs(estimated(rung) - target))

    for number in range(most):
        plan = nearest(estimate)
        # One that was left for another may still be the best there is, and is then measured to the end.
        again = plan in left
        if plan in (trial.plan for trial in trials) and not again:
            break

        def another(slowdown: float, plan: Plan = plan, last: bool = again or number + 1 == most) -> bool:
            better = nearest(_corrected([*seen, (plan, slowdown)]))
            return not last and better != plan and better not in (trial.plan for trial in trials)

        original, bundle, verdict = judged_pairs(measure(plan), settings, another=another)
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
        progress(number + 1, most)
        if verdict == "met":
            return plan, trials
        if verdict == "noisy":
            raise _noisy(trials[-1], settings)
        if again:
            left.remove(plan)
        elif verdict == "edge" and len(bundle) < settings.max_pairs:
            left.append(plan)
        seen.append((plan, slowdown))
        estimate = _corrected(seen)
    raise _refusal(ladder, estimate, trials, settings, remedy)


def judged_pairs(
    sample: Sample,
    settings: Latency,
    progress: Progress = lambda _done, _total: None,
    another: Callable[[float], bool] = lambda _slowdown: False,
) -> tuple[list[float], list[float], Verdict]:
    """Paired seconds of original and candidate, as many as decide whether the slowdown meets the target.

    another: whether a plan nearer to the target is left to try if this one has the given slowdown. `edge` where one is
    and this one lies in the outer half of the band, or where the slowdown is known well after the most pairs and is one
    end of the band as far as they tell; `noisy` where it is not known, or will not be by far.
    """
    low, target, high = (math.log(settings.target_slowdown * (1 + side * settings.tolerance)) for side in (-1, 0, 1))
    meets, misses = (
        ranks_of_looks(settings.pairs, settings.max_pairs, error) for error in (_FALSELY_MET, _FALSELY_MISSED / 2)
    )
    original: list[float] = []
    bundle: list[float] = []
    for number, samples in enumerate(looks(settings.pairs, settings.max_pairs)):
        while len(original) < samples:
            first, second = sample()
            original.append(first)
            bundle.append(second)
            progress(len(original), settings.max_pairs)
        ratios = np.asarray(bundle) / np.asarray(original)
        averages = walsh_averages(np.log(ratios))
        slowdown = math.log(float(np.median(ratios)))
        least, most = ends(averages, meets[number])
        enough = samples == settings.max_pairs or sum(original) + sum(bundle) >= settings.min_seconds
        if enough and low <= least and most <= high and low <= slowdown <= high:
            return original, bundle, "met"
        least, most = ends(averages, misses[number])
        if (most < low and slowdown < low) or (high < least and high < slowdown):
            return original, bundle, "missed"
        least, most = ratio_interval(ratios, _CONFIDENCE)
        off = not (low + target) / 2 <= slowdown <= (target + high) / 2
        off = off and not least <= settings.target_slowdown <= most
        if number + 1 >= _LOOKS_BEFORE_ANOTHER and off and another(math.exp(slowdown)):
            return original, bundle, "edge"
        promised = math.log(most / least) * math.sqrt(samples / settings.max_pairs)
        if number + 1 >= _LOOKS_BEFORE_HOPELESS and promised > _HOPELESS * (high - low) / 2:
            return original, bundle, "noisy"
    # Narrow enough and yet on the edge of the band: a candidate nearer to its middle is needed.
    known = math.log(most / least) <= (high - low) / 2
    return original, bundle, "edge" if known else "noisy"


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
            ratios = np.asarray(bundle) / np.asarray(original)
            least, most = ratio_interval(ratios, _CONFIDENCE)
            if most - least <= widest * float(np.median(ratios)):
                return original, bundle, True
    return original, bundle, False


def slowdown_of(original: Sequence[float], bundle: Sequence[float], seed: int) -> tuple[float, tuple[float, float]]:
    """Median of the paired ratios bundle / original, and its bootstrap 95 % interval (percentile method).

    From few pairs that would be too narrow, from 7 it holds the median in 87.5 % of cases: there it is that of the sign
    test, and of fewer than 6 pairs, which give no such interval, from the least to the most.
    """
    ratios = np.sort(np.asarray(bundle) / np.asarray(original))
    if len(ratios) < _FEW:
        rank = max(1, median_rank(len(ratios), _CONFIDENCE))
        low, high = ratios[rank - 1], ratios[-rank]
    else:
        draws = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))


def _corrected(seen: Sequence[tuple[Plan, float]]) -> Callable[[Plan], float]:
    """The slowdown of a plan by the line through what was measured: plans and their slowdowns."""
    last, slowdown = seen[-1]
    extra = last.columns - last.neurons
    # With few columns a bundle may be no slower than its original: that is no line to climb.
    slope = max(slowdown - 1, _LEAST_RISE * slowdown) / extra
    # Of all before the last, noise is least of what lies between these two.
    other, slowdown_of_other = max(seen, key=lambda one: abs(one[1] - slowdown))
    apart = last.columns - other.columns
    if abs(apart) > _FAR_APART * extra:
        secant = (slowdown - slowdown_of_other) / apart
        # What costs time beside the columns flattens the secant as far as it likes; so does noise between near ones.
        told = secant > 0 and abs(slowdown - slowdown_of_other) > _CLEARLY_APART * slowdown
        slope = secant if told else min(max(secant, slope / 2), slope * 2)
    return lambda plan: slowdown + slope * (plan.columns - last.columns)


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
    ladder: Sequence[Plan],
    estimate: Callable[[Plan], float],
    trials: Sequence[Trial],
    settings: Latency,
    remedy: str,
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
        return BadInput(f"target slowdown {target:g} cannot be reached: {least:.2f} to {most:.2f} can, {how}", remedy)
    if nearest.ci95[0] <= target * (1 + settings.tolerance) and target * (1 - settings.tolerance) <= nearest.ci95[1]:
        return _noisy(nearest, settings)
    return BadInput(
        f"no plan within {settings.tolerance:.0%} of slowdown {target:g}: the nearest measured {nearest.slowdown:.2f} "
        f"(95 % interval {nearest.ci95[0]:.2f} to {nearest.ci95[1]:.2f})",
        "run on a quieter machine, raise `latency.max_trials`, widen `latency.tolerance`, or leave `conversion.order` "
        "out: one order for all neurons makes large steps",
    )
