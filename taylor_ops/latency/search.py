"""Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it.

Each candidate is timed in pairs until its interval lies inside the band around the target (met) or outside of it
(missed). A candidate that is clearly off-centre is set aside while another plan is predicted to be nearer. If none of
these happens within the allowed number of pairs, the machine is too noisy.

The samples of a candidate are looked at many times, so the intervals that decide are wider than for a single look. Over
all looks, a candidate outside of the band passes with a chance of at most 0.1 %. A candidate inside the band is called
missed with a chance of at most 5 %.

This module uses neither a clock nor a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.latency.judging import Sample, Verdict, judged_pairs, slowdown_of
from taylor_ops.latency.record import Trial
from taylor_ops.progress import Progress
from taylor_ops.series.plan import Plan

# Two plans that are nearer than this share of their extra columns say little about the slope between them.
_FAR_APART = 0.05
# Two slowdowns that differ by more than this share of them differ by more than noise. The slope between them is then
# believed, however far it is from the slope of the line through no extra columns.
_CLEARLY_APART = 0.05
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
    """Measure plans of the ladder until one meets the target, in two loadings of the models.

    A plan that meets the target in one loading alone counts as missed, with the slowdown of both together.

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
    set_aside: list[Plan] = []
    estimate = predict

    def nearest(estimated: Callable[[Plan], float]) -> Plan:
        return min(ladder, key=lambda rung: abs(estimated(rung) - target))

    for number in range(most):
        plan = nearest(estimate)
        # A plan that was set aside may still be the best of all. It is then measured to the end.
        again = plan in set_aside
        if plan in (trial.plan for trial in trials) and not again:
            break

        def another(slowdown: float, plan: Plan = plan, last: bool = again or number + 1 == most) -> bool:
            better = nearest(_corrected([*measured, (plan, slowdown)]))
            return not last and better != plan and better not in (trial.plan for trial in trials)

        def report(taken: int, expected: int, before: int = sum(len(trial.seconds_bundle) for trial in trials)) -> None:
            progress(before + taken, before + expected)

        original, bundle, verdict = judged_pairs(measure(plan), settings, report, another)
        loadings: tuple[int, ...] = (len(original),)
        if verdict == "met":
            of_another, of_its_bundle, verdict = _confirmed(measure(plan, anew=True), settings, report, len(original))
            loadings = (*loadings, len(of_another))
            original, bundle = original + of_another, bundle + of_its_bundle
        slowdown, interval = slowdown_of(original, bundle, seed, loadings)
        trials.append(
            Trial(
                plan=plan,
                predicted=estimate(plan),
                slowdown=slowdown,
                ci95=interval,
                seconds_original=tuple(original),
                seconds_bundle=tuple(bundle),
                loadings=loadings,
            )
        )
        if verdict == "met":
            return plan, trials
        if verdict == "noisy":
            raise _noisy(trials[-1], settings)
        if again:
            set_aside.remove(plan)
        elif verdict == "edge" and len(loadings) == 1 and len(bundle) < settings.max_pairs:
            set_aside.append(plan)
        measured.append((plan, slowdown))
        estimate = _corrected(measured)
    raise _refusal(ladder, estimate, trials, settings, remedy)


def _confirmed(
    sample: Sample, settings: Latency, report: Progress, before: int
) -> tuple[list[float], list[float], Verdict]:
    """Judge a candidate in another loading, after `before` pairs in the first."""
    return judged_pairs(
        sample, settings, lambda taken, expected: report(before + taken, before + expected), confirming=True
    )


def _corrected(measured: Sequence[tuple[Plan, float]]) -> Callable[[Plan], float]:
    """Estimate the slowdown of a plan by a line through measured plans and their slowdowns."""
    last, slowdown = measured[-1]
    extra = last.columns - last.neurons
    # With few columns a bundle may be no slower than its original, which would give a line without slope.
    slope = max(slowdown - 1, _LEAST_RISE * slowdown) / extra
    # The larger the difference of two slowdowns, the less noise matters to the slope between them.
    other, slowdown_of_other = max(measured, key=lambda pair: abs(pair[1] - slowdown))
    distance = last.columns - other.columns
    if abs(distance) > _FAR_APART * extra:
        secant = (slowdown - slowdown_of_other) / distance
        # Costs beside the columns can flatten a secant to any degree. So can noise between near slowdowns.
        believed = secant > 0 and abs(slowdown - slowdown_of_other) > _CLEARLY_APART * slowdown
        slope = secant if believed else min(max(secant, slope / 2), slope * 2)
    return lambda plan: slowdown + slope * (plan.columns - last.columns)


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
