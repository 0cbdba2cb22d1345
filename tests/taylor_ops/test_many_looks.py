"""Intervals that are looked at again and again as samples come in: all looks together are as sure as they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from taylor_ops.calibration import Sample, judged_pairs, median_interval, ranks_of_looks
from taylor_ops.config import Latency

BAND = Latency(target_slowdown=4.0, tolerance=0.03)
INSIDE, ABOVE, EDGE = 4.0, 4.5, 4.12


def looks(first: int, most: int) -> list[int]:
    return list(range(first, most + 1, 4))


@pytest.mark.parametrize(("first", "most"), [(7, 15), (11, 11), (11, 18), (11, 19), (13, 17)])
@pytest.mark.parametrize("error", [0.001, 0.05])
def test_over_all_courses_of_a_fair_coin_no_more_are_wrong_than_is_said(first: int, most: int, error: float) -> None:
    # Every course that the samples can take: each lies beyond the median or not, with the same chance.
    courses = np.arange(2**most)
    wrong = np.zeros(2**most, dtype=bool)
    ranks = ranks_of_looks(first, most, error)
    for samples, rank in zip(looks(first, most), ranks, strict=True):
        wrong |= np.bitwise_count(courses & (2**samples - 1)) < rank
    assert wrong.mean() <= error
    # The last rank could not be larger.
    samples = looks(first, most)[-1]
    wrong |= np.bitwise_count(courses & (2**samples - 1)) < ranks[-1] + 1
    assert wrong.mean() > error


def share_of_wrong(ranks: Iterable[int], courses: int) -> float:
    beyond = np.random.default_rng(0).integers(0, 2, size=(courses, 99), dtype=np.int8).cumsum(axis=1, dtype=np.int8)
    wrong = np.zeros(courses, dtype=bool)
    for samples, rank in zip(looks(11, 99), ranks, strict=True):
        wrong |= beyond[:, samples - 1] < rank
    return float(wrong.mean())


def test_intervals_for_one_look_are_wrong_more_often_where_there_are_many_looks() -> None:
    one_look = [int(median_interval(np.arange(1.0, count + 1), 0.999)[0]) for count in looks(11, 99)]
    assert share_of_wrong(one_look, 200_000) > 0.002
    assert share_of_wrong(ranks_of_looks(11, 99, 0.001), 200_000) <= 0.0012


def of(ratios: Iterable[float]) -> Sample:
    numbers = iter(ratios)
    return lambda: (1.0, next(numbers))


def test_a_quiet_machine_is_judged_at_the_first_look_that_can_tell() -> None:
    for ratio, looks, verdict in ((INSIDE, 11, "met"), (ABOVE, 7, "missed")):
        original, bundle, found = judged_pairs(of(itertools.repeat(ratio)), BAND)
        assert (len(original), len(bundle), found) == (looks, looks, verdict)


def test_one_ratio_outside_at_the_first_look_takes_three_looks_to_make_up_for() -> None:
    # Of 15 ratios one may lie outside of an interval of 99.9 %; that is for those who look once.
    _, bundle, verdict = judged_pairs(of(itertools.chain([ABOVE], itertools.repeat(INSIDE))), BAND)
    assert median_interval(np.sort(np.asarray(bundle[:15])), 0.999) == (INSIDE, INSIDE)
    assert (len(bundle), verdict) == (19, "met")


def test_what_is_known_well_and_lies_on_the_edge_is_no_noise() -> None:
    close = itertools.cycle([EDGE - 0.01, EDGE + 0.01])
    assert judged_pairs(of(close), BAND)[2] == "edge"
    wide = itertools.cycle([INSIDE - 1, INSIDE + 1])
    assert judged_pairs(of(wide), BAND)[2] == "noisy"


def test_progress_is_told_of_every_pair() -> None:
    told: list[tuple[int, int]] = []
    judged_pairs(of(itertools.repeat(INSIDE)), BAND, lambda *step: told.append(step))
    assert told == [(number, 99) for number in range(1, 12)]
