"""A candidate over several loadings: the intervals hold what differs between them, and they decide."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import mpmath
import numpy as np
import pytest

from taylor_ops.config.latency import Latency
from taylor_ops.latency import loadings
from taylor_ops.latency.judging import Sample, Verdict
from taylor_ops.latency.loadings import Pairs, confirmed, over_loadings
from tests.taylor_ops.conftest import silent

NARROW = Latency(target_slowdown=3.0, tolerance=0.03, min_seconds=0.0)
WIDE = Latency(target_slowdown=3.0, tolerance=0.12, min_seconds=0.0)


def judged(
    slowdowns: Sequence[float], settings: Latency = NARROW, nearer: bool = False
) -> tuple[list[float], Verdict, int]:
    """The slowdowns that were measured, the verdict, and how often a nearer plan was asked for."""
    coming, asked = iter(slowdowns[1:]), itertools.count()

    def load() -> Sample:
        slowdown = next(coming)
        return lambda: (1.0, slowdown)

    def another(_slowdown: float) -> bool:
        next(asked)
        return nearer

    first = Pairs([1.0] * 7, [slowdowns[0]] * 7)
    found, verdict = confirmed(load, first, settings, silent, another)
    return [pairs.slowdown for pairs in found], verdict, next(asked)


def chance_beyond(t: float, freedom: int) -> float:
    """The chance that Student's t is above `t`."""
    return float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)) / 2


@pytest.mark.parametrize("freedom", range(1, 12))
def test_the_quantiles_are_those_of_students_t(freedom: int) -> None:
    assert chance_beyond(loadings._T_975[freedom - 1], freedom) == pytest.approx(0.025, rel=1e-3)
    assert chance_beyond(loadings._T_99[freedom - 1], freedom) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("number", [2, 3, 5, 12])
def test_the_intervals_hold_the_mean_and_one_more_loading_as_often_as_they_say(number: int) -> None:
    chance, times = np.random.default_rng(number), 4000
    logs = math.log(3.0) + chance.normal(0, 0.02, (times, number))
    found = [over_loadings(list(np.exp(row))) for row in logs]
    more = np.exp(math.log(3.0) + chance.normal(0, 0.02, times))
    assert np.mean([low <= 3.0 <= high for _, (low, high), _ in found]) == pytest.approx(0.98, abs=0.008)
    held = [low <= one <= high for (_, _, (low, high)), one in zip(found, more, strict=True)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_the_slowdown_is_that_of_the_loadings_and_not_of_the_pairs() -> None:
    found = over_loadings([2.0, 8.0])
    assert found.slowdown == pytest.approx(4.0)
    assert Pairs([1.0, 2.0, 1.0], [3.0, 2.0, 2.0]).slowdown == 2.0


@pytest.mark.parametrize(("settings", "number"), [(NARROW, 5), (WIDE, 3)])
def test_loadings_that_agree_meet_the_target_and_the_narrow_band_asks_for_more_of_them(
    settings: Latency, number: int
) -> None:
    slowdowns, verdict, _ = judged([3.0, 3.01, 2.99] * 4, settings)
    assert (verdict, len(slowdowns)) == ("met", number)


def test_loadings_that_differ_by_more_than_the_band_do_not_meet_the_target_however_many_pairs_each_gives() -> None:
    first = Pairs([1.0] * 500, [3.0] * 500)
    found, verdict = confirmed(
        lambda: lambda: (1.0, 3.3), first, NARROW.model_copy(update={"pairs": 200}), silent, lambda _slowdown: False
    )
    assert verdict == "missed"
    assert len(found) > 5


def test_further_loadings_reject_a_candidate_that_the_first_flattered() -> None:
    assert judged([3.0, *[3.3, 3.32, 3.28] * 4])[1] == "missed"


def test_loadings_at_the_end_of_the_band_leave_it_to_a_nearer_plan_if_there_is_one() -> None:
    off = [3.06, 3.09, 3.03, 3.12, 3.05] * 3
    slowdowns, verdict, asked = judged(off, nearer=True)
    assert (verdict, len(slowdowns), asked) == ("edge", 5, 1)
    slowdowns, verdict, _ = judged(off)
    assert (verdict, len(slowdowns)) != ("edge", 5)


def test_loadings_that_are_all_over_the_place_end_early_with_a_noisy_machine() -> None:
    slowdowns, verdict, _ = judged([2.7, 3.3, 2.6, 3.4, 2.8, 3.2] * 2)
    assert (verdict, len(slowdowns)) == ("noisy", 6)


def test_no_more_loadings_are_taken_than_there_are_quantiles_for() -> None:
    assert len(judged([2.95, 3.13] * 10)[0]) == 12


def test_the_most_pairs_are_enough_however_short_they_are() -> None:
    settings = NARROW.model_copy(update={"min_seconds": 1e6, "max_pairs": 20})
    slowdowns, verdict, _ = judged([3.0] * 12, settings)
    assert (verdict, len(slowdowns)) == ("met", 5)


def test_all_samples_together_last_as_long_as_is_asked_for() -> None:
    settings = NARROW.model_copy(update={"min_seconds": 400.0})
    slowdowns, verdict, _ = judged([3.0] * 12, settings)
    assert (verdict, len(slowdowns)) == ("met", 6)
