"""Intervals that are looked at again and again as samples come in: all looks together are as sure as they say."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taylor_ops.config.latency import Latency
from taylor_ops.latency.intervals import (
    ends,
    looks,
    median_rank,
    ranks_of_looks,
    ratio_interval,
    walsh_averages,
    widening,
)
from taylor_ops.latency.judging import Sample, judged_pairs
from tests.support.clocks import restless

BAND = Latency(target_slowdown=4.0, tolerance=0.03)
INSIDE, OFF, ABOVE, EDGE = 4.0, 4.08, 4.5, 4.12


def wrong_in_all_courses(ranks: Iterable[int], first: int, most: int) -> float:
    """Share of the courses that samples can take on which a look has their centre, 0, beyond its upper end.

    Which of the samples are positive, and in what order their sizes come, are fair chances: signs are gone through in
    full, orders are drawn.
    """
    random, signs = np.random.default_rng(most), np.arange(2**most)[:, None] >> np.arange(most) & 1
    shares = []
    for _ in range(20):
        values, wrong = random.permutation(most) + 1.0, np.zeros(2**most, dtype=bool)
        for samples, rank in zip(looks(first, most), ranks, strict=True):
            # The rank-th largest mean of two lies below 0 where fewer than rank of these are above it.
            places = np.argsort(np.argsort(values[:samples])) + 1
            wrong |= signs[:, :samples] @ places < rank
        shares.append(float(wrong.mean()))
    return statistics.fmean(shares)


@pytest.mark.parametrize(("first", "most"), [(7, 15), (11, 11), (11, 15), (13, 16)])
@pytest.mark.parametrize("error", [0.001, 0.05])
def test_over_all_courses_no_more_looks_are_wrong_than_is_said(first: int, most: int, error: float) -> None:
    ranks = ranks_of_looks(first, most, error)
    assert 0 < wrong_in_all_courses(ranks, first, most) <= error
    if first == most:
        assert wrong_in_all_courses([rank + 1 for rank in ranks], first, most) > error


def test_samples_come_a_third_more_at_each_look() -> None:
    assert looks(7, 141) == (7, 11, 15, 20, 26, 34, 45, 60, 80, 106, 141)
    assert looks(7, 99)[-2:] == (80, 99)
    assert looks(11, 11) == (11,)
    assert looks(11, 12) == (11, 12)


def noise(kind: str, courses: int) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    quiet = random.normal(size=(courses, 99))
    if kind == "heavy":
        return random.standard_cauchy(size=(courses, 99))
    if kind == "coin":
        return random.choice([-1.0, 1.0], size=(courses, 99))
    return quiet + 9 * random.choice([-1, 0, 0, 0, 1], size=(courses, 99)) if kind == "outliers" else quiet


@pytest.mark.parametrize("kind", ["normal", "heavy", "coin", "outliers"])
def test_the_centre_lies_beyond_an_interval_as_rarely_as_is_said_whatever_the_noise(kind: str) -> None:
    error, courses = 0.02, 3000
    values, wrong = noise(kind, courses), np.zeros(courses, dtype=bool)
    for samples, rank in zip(looks(7, 99), ranks_of_looks(7, 99, error), strict=True):
        below = [ends(walsh_averages(course), rank)[1] < 0 for course in values[:, :samples]]
        wrong |= np.asarray(below)
    assert wrong.mean() <= error + 3 * (error / courses) ** 0.5


@given(
    logs=st.lists(st.floats(-1, 1), min_size=6, max_size=30),
    confidence=st.sampled_from([0.8, 0.95]),
    times=st.floats(0.1, 10),
)
@settings(deadline=None)
def test_an_interval_is_the_same_for_either_model_over_the_other_and_in_any_unit(
    logs: list[float], confidence: float, times: float
) -> None:
    low, high = ratio_interval(np.exp(logs), confidence)
    assert low <= high
    turned = ratio_interval(np.exp(-np.asarray(logs)), confidence)
    assert list(turned) == pytest.approx([1 / high, 1 / low])
    assert list(ratio_interval(times * np.exp(logs), confidence)) == pytest.approx([times * low, times * high])


def test_an_interval_is_that_of_the_tables_of_the_signed_rank_test() -> None:
    # Of ten samples two-sided at 5 %: critical value 8, so that the ninth mean from either side is an end.
    values = np.array([0.0, 5.0, 1.0, 6.0, 2.0, 7.0, 3.0, 8.0, 4.0, 9.0]) ** 2
    averages = np.sort(walsh_averages(values))
    low, high = ratio_interval(np.exp(values), 0.95)
    assert [math.log(low), math.log(high)] == pytest.approx([averages[8], averages[-9]])
    assert ratio_interval([1.0, 2.0, 3.0], 0.95) == (0.0, math.inf)


def test_the_median_lies_between_the_samples_of_the_tables_of_the_sign_test() -> None:
    ranks = {5: 0, 6: 1, 7: 1, 8: 1, 9: 2, 12: 3, 20: 6, 100: 40, 2000: 956}
    assert {samples: median_rank(samples, 0.95) for samples in ranks} == ranks


def of(ratios: Iterable[float]) -> Sample:
    numbers = iter(ratios)
    return lambda: (1.0, next(numbers))


def test_a_quiet_machine_is_judged_at_the_first_look_that_can_tell() -> None:
    for ratio, pairs, verdict in ((INSIDE, 11, "met"), (ABOVE, 7, "missed")):
        original, bundle, found = judged_pairs(of(itertools.repeat(ratio)), BAND)
        assert (len(original), len(bundle), found) == (pairs, pairs, verdict)


def test_one_ratio_outside_takes_more_looks_to_make_up_for() -> None:
    _, bundle, verdict = judged_pairs(of(itertools.chain([ABOVE], itertools.repeat(INSIDE))), BAND)
    assert (len(bundle), verdict) == (26, "met")


def test_what_is_known_well_and_lies_on_the_edge_is_no_noise() -> None:
    assert judged_pairs(of(restless(EDGE, 0.005)), BAND)[2] == "edge"
    assert judged_pairs(of(restless(INSIDE, 0.3)), BAND)[2] == "noisy"


def test_off_the_middle_another_plan_is_tried_where_one_is_nearer() -> None:
    asked: list[float] = []

    def another(slowdown: float) -> bool:
        asked.append(slowdown)
        return True

    _, bundle, verdict = judged_pairs(of(restless(OFF, 0.02)), BAND, another=another)
    assert (20 <= len(bundle) <= 45, verdict) == (True, "edge")
    assert asked == pytest.approx([OFF], rel=0.01)
    # Where there is none, it is looked at until it is settled.
    _, bundle, verdict = judged_pairs(of(restless(OFF, 0.02)), BAND)
    assert len(bundle) > 45
    assert verdict == "met"
    # In the middle nobody asks.
    asked.clear()
    assert judged_pairs(of(restless(INSIDE, 0.02)), BAND, another=another)[2] == "met"
    assert asked == []


def test_a_target_is_not_met_before_the_samples_have_lasted_as_long_as_is_asked_for() -> None:
    # A pair at the target lasts 1 + 4 seconds: 100 seconds are 20 pairs, one a look, the next of which is at 26.
    for least, pairs in ((0, 11), (55, 11), (56, 15), (101, 26), (None, 11), (3600, 600)):
        settings = BAND.model_copy(update={"min_seconds": least})
        _, bundle, verdict = judged_pairs(of(itertools.repeat(INSIDE)), settings)
        assert (len(bundle), verdict) == (pairs, "met")
        # That it is missed may be said at once.
        assert len(judged_pairs(of(itertools.repeat(ABOVE)), settings)[1]) == 7


def test_progress_is_told_of_every_pair() -> None:
    told: list[tuple[int, int]] = []
    judged_pairs(of(itertools.repeat(INSIDE)), BAND, lambda *step: told.append(step))
    assert [taken for taken, _ in told] == list(range(1, 12))
    assert told[0][1] == BAND.pairs
    assert all(taken <= expected <= BAND.max_pairs for taken, expected in told)
    assert told[-1][0] == 11


def test_the_number_of_pairs_that_is_expected_comes_near_to_the_one_that_decides() -> None:
    told: list[tuple[int, int]] = []
    _, bundle, verdict = judged_pairs(of(restless(INSIDE, 0.06)), BAND, lambda *step: told.append(step))
    assert verdict == "met"
    halfway = next(expected for taken, expected in told if 2 * taken >= len(bundle))
    assert len(bundle) / 2 <= halfway <= 2 * len(bundle)


def test_a_shared_mood_of_neighbouring_samples_needs_more_of_them() -> None:
    chance, shared, logs = random.Random(3), 0.0, []
    for _ in range(600):
        shared = 0.9 * shared + chance.gauss(0, 0.01)
        logs.append(shared)
    alike = [INSIDE * math.exp(value) for value in logs]
    chance.shuffle(logs)
    shuffled = [INSIDE * math.exp(value) for value in logs]
    assert len(judged_pairs(of(alike), BAND)[1]) > 2 * len(judged_pairs(of(shuffled), BAND)[1])
    assert widening(np.log(alike)) > 2 > 1.3 > widening(np.log(shuffled)) >= 1
