"""Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it.

Each candidate is timed in pairs until its interval lies inside the band around the target (met) or outside of it
(missed). A candidate that is clearly off-centre is set aside while another plan is predicted to be nearer. If none of
these happens within the allowed number of pairs, the machine is too noisy. A candidate that meets the target is loaded
anew, until the interval over all its loadings lies inside the band.

The samples of a candidate are looked at many times, so the intervals that decide are wider than for a single look. Over
all looks, a candidate outside of the band passes the first loading with a chance of at most 2.5 %, and then has to pass
the others. A candidate inside the band is called missed with a chance of at most 5 %.

This module uses neither a clock nor a model.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Protocol

from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.latency.judging import Sample, judged_pairs, slowdown_of
from taylor_ops.latency.loadings import Pairs, confirmed, over_loadings
from taylor_ops.latency.record import Trial
from taylor_ops.progress import Progress
from taylor_ops.series.plan import Plan

# Two plans that are nearer than this share of their extra columns say little about the slope between them.
_FAR_APART = 0.05
# Two slowdowns that differ by more than this share of them differ by more than noise. The slope between them is then
# believed, however far it is from the slope of the line through no extra columns.
_CLEARLY_APART = 0.05
# Loadings whose slowdowns differ by no more than this share say together where the line of slowdowns lies.
_NEAR = 0.06
# The least share of its slowdown that a bundle is taken to owe to its columns.
_LEAST_RISE = 0.1


class Measure(Protocol):
    """Makes one candidate ready. Returns a function that times one pair of original and candidate, in seconds.

    With `anew`, it loads both models again.
    """

    def __call__(self, plan: Plan, anew: bool = False) -> Sample: ...


def search(
    ladder: Sequence[Plan],
    predict: Callable[[Plan], float],
    measure: Measure,
    settings: Latency,
    seed: int,
    progress: Progress,
    remedy: str,
) -> tuple[Plan, list[Trial]]:
    """Measure plans of the ladder until one meets the target over several loadings of the models.

    The first guess comes from `predict`. If it misses, the next guess lies on the line from (no extra columns, slowdown
    1) to the measured slowdown. Later guesses lie on the secant through the last trial and the trial whose slowdown is
    farthest from it.

    Args:
        ladder: The plans to choose from, by rising number of columns.
        predict: The slowdown that is expected of a plan before anything is measured.
        measure: Makes the candidate of a plan ready.
        settings: The target, its tolerance and the numbers of pairs and trials.
        seed: Seed of the bootstrap intervals.
        progress: Receives the number of pairs so far, and how many the running trial is expected to end with.
        remedy: What to do if the target cannot be reached, for the error.

    Returns:
        The chosen plan and all trials. The trial of the chosen plan is the last.

    Raises:
        BadInput: The target cannot be reached, or no measured plan is near enough to it.
        WorkFailed: The machine is too noisy to tell.
    """
    target, most = settings.target_slowdown, settings.max_trials
    trials: list[Trial] = []
    measured: list[tuple[Plan, float]] = []
    estimate = predict

    def nearest(estimated: Callable[[Plan], float]) -> Plan:
        return min(ladder, key=lambda rung: abs(estimated(rung) - target))

    for number in range(most):
        plan = nearest(estimate)
        # A plan that was left, or that one loading put beyond the band, may still be the best of all.
        before = [trial.slowdown for trial in trials if trial.plan == plan]
        if len(before) > 1 or any(abs(slowdown / target - 1) > settings.tolerance + _NEAR for slowdown in before):
            break

        def another(slowdown: float, plan: Plan = plan, last: bool = bool(before) or number + 1 == most) -> bool:
            better = nearest(_corrected([*measured, (plan, slowdown)]))
            return not last and better != plan and better not in (trial.plan for trial in trials)

        def report(taken: int, expected: int, earlier: int = sum(sum(t.loadings) for t in trials)) -> None:
            progress(earlier + taken, earlier + expected)

        original, bundle, verdict = judged_pairs(measure(plan), settings, report, another, screening=True)
        loadings = [Pairs(original, bundle)]
        if verdict == "met":
            loadings, verdict = confirmed(
                lambda plan=plan: measure(plan, anew=True),  # type: ignore[misc]
                loadings[0],
                settings,
                report,
                another,
            )
        trials.append(_trial(plan, estimate(plan), loadings, seed))
        if verdict == "met":
            return plan, trials
        if verdict == "noisy":
            raise _noisy(trials[-1], settings)
        measured.extend((plan, pairs.slowdown) for pairs in loadings)
        estimate = _corrected(measured)
    raise _refusal(ladder, estimate, trials, settings, remedy)


def _trial(plan: Plan, predicted: float, loadings: Sequence[Pairs], seed: int) -> Trial:
    of_mean = None
    if len(loadings) > 1:
        slowdown, of_mean, ci95 = over_loadings([pairs.slowdown for pairs in loadings])
    else:
        slowdown, ci95 = slowdown_of(*loadings[0], seed)
    return Trial(
        plan=plan,
        predicted=predicted,
        slowdown=slowdown,
        ci95=ci95,
        ci98_of_mean=of_mean,
        seconds_original=tuple(seconds for pairs in loadings for seconds in pairs.original),
        seconds_bundle=tuple(seconds for pairs in loadings for seconds in pairs.bundle),
        loadings=tuple(len(pairs.original) for pairs in loadings),
    )


def _corrected(measured: Sequence[tuple[Plan, float]]) -> Callable[[Plan], float]:
    """Estimate the slowdown of a plan by a line through plans and the slowdowns of their loadings."""
    last, slowdown = measured[-1]
    # One loading may be faster than the next: all that lie near the last one say where the line lies.
    near = [(plan.columns, found) for plan, found in measured if abs(found / slowdown - 1) <= _NEAR]
    columns, slowdown = (statistics.fmean(values) for values in zip(*near, strict=True))
    extra = columns - last.neurons
    # With few columns a bundle may be no slower than its original, which would give a line without slope.
    slope = max(slowdown - 1, _LEAST_RISE * slowdown) / extra
    # The larger the difference of two slowdowns, the less noise matters to the slope between them.
    other, slowdown_of_other = max(measured, key=lambda pair: abs(pair[1] - slowdown))
    distance = columns - other.columns
    if abs(distance) > _FAR_APART * extra:
        secant = (slowdown - slowdown_of_other) / distance
        # Costs beside the columns can flatten a secant to any degree. So can noise between near slowdowns.
        believed = secant > 0 and abs(slowdown - slowdown_of_other) > _CLEARLY_APART * slowdown
        slope = secant if believed else min(max(secant, slope / 2), slope * 2)
    return lambda plan: slowdown + slope * (plan.columns - columns)


def _noisy(trial: Trial, settings: Latency) -> WorkFailed:
    low, high = trial.ci95
    return WorkFailed(
        f"the machine is too noisy to calibrate: after {len(trial.seconds_bundle)} pairs the slowdown is "
        f"{trial.slowdown:.2f} with a 95 % interval of {low:.2f} to {high:.2f}, for a target of "
        f"{settings.target_slowdown:g} within {settings.tolerance:.0%}",
        "end the other programs on this machine, raise `latency.max_pairs` or `latency.new_tokens`, "
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
            "leave `latency.columns` out: the slowdown of a plan differs from machine to machine",
        )
    least, most = sorted(estimate(rung) for rung in (ladder[0], ladder[-1]))
    if not least <= target <= most and not min(measured) <= target <= max(measured):
        protected = min(rung.protected for rung in ladder)
        share = "every neuron" if protected == 1 else f"at least {protected:.1%} of neurons"
        return BadInput(
            f"target slowdown {target:g} cannot be reached: {least:.2f} to {most:.2f} can, with {share} protected",
            remedy,
        )
    if nearest.ci95[0] <= target * (1 + settings.tolerance) and target * (1 - settings.tolerance) <= nearest.ci95[1]:
        return _noisy(nearest, settings)
    return BadInput(
        f"no plan within {settings.tolerance:.0%} of slowdown {target:g}: the nearest measured {nearest.slowdown:.2f} "
        f"(95 % interval {nearest.ci95[0]:.2f} to {nearest.ci95[1]:.2f})",
        "run on a quieter machine, raise `latency.max_trials`, widen `latency.tolerance`, or leave `conversion.order` "
        "out: one order for all neurons makes large steps",
    )
