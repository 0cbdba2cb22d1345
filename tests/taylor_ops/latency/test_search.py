"""Calibration without a clock: the search over plans, and its intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, ReleaseError
from taylor_ops.latency.judging import Sample
from taylor_ops.latency.record import Trial
from taylor_ops.latency.search import search
from taylor_ops.series.plan import Plan
from tests.support.machine_example import LADDER, NEURONS, REMEDY, Machine, Slowdown, find, line, plan_of


class Moody(Machine):
    """A machine on which each measurement is off by the next of the given factors."""

    def __init__(self, slowdown: Slowdown, factors: Sequence[float]) -> None:
        super().__init__(lambda rung: slowdown(rung) * factors[(len(self.asked) - 1) % len(factors)])


def refusal_of(search_for: Callable[[], object]) -> str | None:
    """What a search says when it refuses, None when it finds a plan."""
    try:
        search_for()
    except ReleaseError as refused:
        return refused.cause
    return None


NEAR = 0.06
"""How far beyond the band a plan may lie, over the target, that is asked a second time."""


def found_within_tolerance(target: float, machine: Machine, guess: Slowdown) -> tuple[Plan, list[Trial]]:
    """The search's answer, held to its promises: its own trial last and inside, no more trials than allowed.

    A plan is asked a second time only if it was near the target, and not a third time.
    """
    chosen, trials = find(target, machine, guess)
    limits = Latency(target_slowdown=target)
    assert trials[-1].plan == chosen
    off = [abs(trial.slowdown / target - 1) for trial in trials]
    # The search compares logarithms, which round otherwise at the very edge.
    assert off[-1] <= limits.tolerance + 1e-12
    assert all(missed > limits.tolerance - 1e-12 for missed in off[:-1])
    assert [trial.plan for trial in trials] == machine.asked
    assert len(trials) <= limits.max_trials
    by_plan = {trial.plan.columns: [one for one in trials if one.plan == trial.plan] for trial in trials}
    assert all(len(asked) <= 2 for asked in by_plan.values())
    again = [asked[0].slowdown for asked in by_plan.values() if len(asked) == 2]
    assert all(abs(slowdown / target - 1) <= limits.tolerance + NEAR for slowdown in again)
    return chosen, trials


# The search


@given(
    target=st.floats(1.5, 20),
    share=st.floats(0.05, 0.95),
    guess=st.floats(0.3, 3.0),
)
@settings(deadline=None, max_examples=200)
def test_the_search_converges_whatever_the_slope_and_however_wrong_its_first_guess(
    target: float, share: float, guess: float
) -> None:
    columns = LADDER[0].columns + share * (LADDER[-1].columns - LADDER[0].columns)
    slope = (target - 1) / (columns - NEURONS)
    _, trials = found_within_tolerance(target, Machine(line(slope)), line(slope * guess))
    assert len(trials) <= 2


@given(
    target=st.floats(2, 10),
    share=st.floats(0.2, 0.8),
    guess=st.floats(0.5, 2.0),
    overhead=st.floats(0, 0.3),
)
@settings(deadline=None, max_examples=200)
def test_the_search_converges_where_the_features_cost_something_beside_the_bytes(
    target: float, share: float, guess: float, overhead: float
) -> None:
    columns = LADDER[0].columns + share * (LADDER[-1].columns - LADDER[0].columns)
    slope = (target - 1 - overhead) / (columns - NEURONS)
    found_within_tolerance(target, Machine(line(slope, overhead)), line(slope * guess))


@given(
    target=st.floats(2, 10),
    share=st.floats(0.2, 0.8),
    guess=st.floats(0.5, 2.0),
    fixed=st.floats(0.3, 0.85),
)
@settings(deadline=None, max_examples=200)
def test_the_search_converges_where_most_of_the_cost_is_fixed(
    target: float, share: float, guess: float, fixed: float
) -> None:
    columns = LADDER[0].columns + share * (LADDER[-1].columns - LADDER[0].columns)
    overhead = fixed * (target - 1)
    slope = (target - 1 - overhead) / (columns - NEURONS)
    found_within_tolerance(target, Machine(line(slope, overhead)), line(slope * guess))


def test_the_search_climbs_from_a_first_candidate_that_is_no_slower_than_the_original() -> None:
    machine = Machine(line(3e-4, overhead=-0.25))
    plan, trials = find(1.3, machine, line(4e-4))
    assert trials[0].slowdown < 1
    assert machine.slowdown(plan) == pytest.approx(1.3, rel=0.03)
    assert len(trials) <= 4


def test_a_secant_that_measurements_tell_apart_is_believed_however_flat() -> None:
    chosen, trials = found_within_tolerance(4.0, Machine(line(2.5e-4, 2.5)), line(5e-4))
    assert [trial.plan.columns for trial in trials] == [6100, 4600, 2100]
    assert chosen.columns == 2100


@example(target=44.0, slope=0.01953125, guess=0.015625, factors=[1.0, 2.0, 3.25, 3.0])
@given(
    target=st.floats(1.1, 50),
    slope=st.floats(1e-5, 1e-1),
    guess=st.floats(1e-5, 1e-1),
    factors=st.lists(st.floats(0.2, 5), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=200)
def test_no_plan_is_returned_whose_own_trial_lies_outside_the_tolerance(
    target: float, slope: float, guess: float, factors: list[float]
) -> None:
    machine = Moody(line(slope), factors)
    refusal = refusal_of(lambda: found_within_tolerance(target, machine, line(guess)))
    assert refusal is None or f"slowdown {target:g}" in refusal
    assert 1 <= len(machine.asked) <= Latency().max_trials


def test_a_first_guess_that_meets_the_target_is_the_only_trial() -> None:
    machine = Machine(line(1e-3))
    chosen, trials = found_within_tolerance(3.0, machine, line(1e-3))
    assert [trial.plan for trial in trials] == [chosen]
    assert trials[0].predicted == pytest.approx(trials[0].slowdown) == pytest.approx(3.0)
    assert chosen.columns == 2100


def test_a_trial_keeps_its_raw_samples_and_what_was_predicted() -> None:
    machine = Machine(line(2e-3))
    _, trials = found_within_tolerance(4.0, machine, line(1e-3))
    assert [trial.predicted for trial in trials] == [pytest.approx(4.0), pytest.approx(4.0)]
    assert [trial.plan.columns for trial in trials] == [3100, 1600]
    for trial in trials:
        expected = [pair() for number in trial.loadings for pair in number * [machine(trial.plan)]]
        assert list(zip(trial.seconds_original, trial.seconds_bundle, strict=True)) == expected
        assert trial.ci95[0] <= trial.slowdown <= trial.ci95[1]


def test_progress_is_told_of_every_pair_of_all_loadings_and_goes_on_from_trial_to_trial() -> None:
    told: list[tuple[int, int]] = []
    _, trials = search(
        LADDER,
        line(1e-3),
        Machine(line(2e-3)),
        Latency(target_slowdown=4.0, max_trials=3),
        0,
        lambda *step: told.append(step),
        REMEDY,
    )
    assert [taken for taken, _ in told] == list(range(1, sum(len(trial.seconds_bundle) for trial in trials) + 1))
    assert all(taken <= expected for taken, expected in told)


class Restarted(Machine):
    """A machine on which a plan in later loadings takes other times than in the first."""

    def __init__(self, slowdown: Slowdown, *later: float) -> None:
        super().__init__(slowdown)
        self.loaded_anew: list[Plan] = []
        self._later = itertools.cycle(later)

    def __call__(self, plan: Plan, anew: bool = False) -> Sample:
        usual = super().__call__(plan, anew)
        if not anew:
            return usual
        self.loaded_anew.append(plan)
        slower = next(self._later)

        def pair() -> tuple[float, float]:
            original, bundle = usual()
            return original, bundle * slower

        return pair


def test_a_plan_that_meets_the_target_is_confirmed_in_further_loadings() -> None:
    machine = Restarted(line(1e-3), 1.01, 0.99)
    chosen, (trial,) = find(3.0, machine, line(1e-3))
    assert machine.loaded_anew == [chosen] * 4
    assert trial.loadings == (7,) * 5
    assert len(trial.seconds_bundle) == 35
    # Student's t of four degrees of freedom, over loadings of 3.0, 3.03, 2.97, 3.03 and 2.97.
    assert trial.ci98_of_mean is not None
    low, high = trial.ci98_of_mean
    assert low < 3.0 * (1 - 0.012)
    assert high > 3.0 * (1 + 0.012)
    assert trial.ci95[0] < low < trial.slowdown < high < trial.ci95[1]


def test_a_plan_that_further_loadings_do_not_confirm_is_missed() -> None:
    machine = Restarted(line(1e-3), 1.5)
    refusal = refusal_of(lambda: find(3.0, machine, line(1e-3), max_trials=1))
    assert refusal is not None
    assert "3" in refusal
    assert {*machine.loaded_anew} == {*machine.asked[:1]}


@given(slope=st.floats(1e-4, 1e-2), guess=st.floats(0.5, 2.0), above=st.booleans(), far=st.floats(1.25, 4))
@settings(deadline=None)
def test_a_target_out_of_reach_is_refused_with_what_can_be_reached(
    slope: float, guess: float, above: bool, far: float
) -> None:
    truth = line(slope)
    least, most = truth(LADDER[0]), truth(LADDER[-1])
    target = most * far if above else least / far
    assume(1.05 < target <= 100)
    machine = Machine(truth)
    with pytest.raises(BadInput, match="cannot be reached") as caught:
        find(target, machine, line(slope * guess))
    assert f"{least:.2f} to {most:.2f} can" in caught.value.cause
    assert caught.value.remedy == REMEDY
    assert machine.asked[-1] == (LADDER[-1] if above else LADDER[0])


def test_a_target_just_outside_that_an_end_meets_within_the_tolerance_is_met() -> None:
    truth = line(1e-3)
    target = truth(LADDER[-1]) * 1.02
    chosen, _ = found_within_tolerance(target, Machine(truth), truth)
    assert chosen == LADDER[-1]


def test_measurements_that_never_land_near_the_target_are_refused() -> None:
    machine = Moody(line(1e-3), [1.3, 0.8])
    with pytest.raises(BadInput, match=r"no plan within 3% of slowdown 3") as caught:
        find(3.0, machine, line(1e-3), max_trials=4)
    assert len(machine.asked) == 4
    assert "latency.max_trials" in caught.value.remedy


def test_a_refusal_names_the_nearest_of_all_trials() -> None:
    machine = Moody(line(1e-3), [1.3, 0.8])
    with pytest.raises(BadInput) as caught:
        find(3.0, machine, line(1e-3), max_trials=4)
    measured = replayed(machine)
    assert measured == pytest.approx([3.9, 1.92, 3.575, 2.12])
    assert f"the nearest measured {measured[2]:.2f}" in caught.value.cause


def test_a_target_between_two_measurements_is_not_called_out_of_reach() -> None:
    machine = Moody(line(1e-3), [1.5, 0.6])
    with pytest.raises(BadInput) as caught:
        find(3.0, machine, line(1e-3))
    assert min(replayed(machine)) < 3.0 < max(replayed(machine))
    assert "cannot be reached" not in caught.value.cause


def replayed(machine: Moody) -> list[float]:
    """The slowdowns that a machine measured, in the order of its trials."""
    asked, machine.asked = machine.asked, []
    measured = []
    for rung in asked:
        original, bundle = machine(rung)()
        measured.append(bundle / original)
    return measured


def test_a_bundle_that_is_faster_than_the_original_is_refused_with_an_interval_in_order() -> None:
    with pytest.raises(BadInput, match="cannot be reached") as caught:
        find(3.0, Machine(lambda rung: 0.9), line(1e-3))
    least, most = caught.value.cause.partition("reached: ")[2].partition(" can")[0].split(" to ")
    assert float(least) <= float(most)


def test_a_ladder_of_one_plan_is_measured_once() -> None:
    machine = Machine(line(1e-3))
    chosen, _ = find(3.0, machine, line(5e-3), [plan_of(2100)])
    assert chosen == plan_of(2100)
    with pytest.raises(BadInput, match=r"2\.00 to 2\.00 can"):
        find(3.0, Machine(line(0.5e-3)), line(1e-3), [plan_of(2100)])


class Uneven(Machine):
    """A machine on which the ratios of a measurement lie about its slowdown, to either side in turn."""

    def __call__(self, plan: Plan, anew: bool = False) -> Sample:
        if not anew:
            self.asked.append(plan)
        slowdown, about = self.slowdown(plan), itertools.cycle([-0.015, 0.015])
        return lambda: (1.0, slowdown * (1 + next(about)))


def test_a_plan_that_was_left_for_a_neighbour_is_come_back_to_where_the_neighbour_misses() -> None:
    ladder = [plan_of(2110), plan_of(2160)]
    machine = Uneven(lambda rung: 3.055 if rung == ladder[1] else 2.7)
    chosen, trials = find(3.0, machine, line(0.97e-3), ladder)
    assert machine.asked == [ladder[1], ladder[0], ladder[1]]
    assert chosen == ladder[1]
    left, _, met = trials
    assert len(left.seconds_bundle) < len(met.seconds_bundle)
