"""Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it. No clock, no model.

A candidate is sampled in pairs until an interval for the centre of its ratios lies inside the band around the target,
or apart from it, or until it lies off the middle and another plan nearer to it would be settled sooner; a machine on
which none of these happens within the budget is called noisy. Intervals that decide are wider than for a single look at
the samples, because there are many: over all looks a candidate that is not inside the band passes with a chance of at
most 0.1 %, one that is inside is said to miss with at most 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.latency.judging import Sample, judged_pairs, slowdown_of
from taylor_ops.latency.record import Trial
from taylor_ops.progress import Progress
from taylor_ops.series.plan import Plan

# Two measurements nearer than this say little about the slope between them.
_FAR_APART = 0.05
# Two slowdowns that differ by more than this part of them differ by more than noise: the slope between them is
# believed, however far from that of the line through no extra columns.
_CLEARLY_APART = 0.05
# Of its slowdown, how much a bundle is taken to owe to its columns at least.
_LEAST_RISE = 0.1


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
