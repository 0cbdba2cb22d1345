"""The slowdown of paired samples and its interval: as sure as it says, from few pairs and from many."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taylor_ops.config.latency import Latency
from taylor_ops.latency.intervals import widening
from taylor_ops.latency.judging import slowdown_of, timed_pairs


def by_turns(values: list[float]) -> list[float]:
    """Values in an order in which neighbours are not alike."""
    chance = random.Random(0)
    while widening(np.log(values)) > 1:
        values = chance.sample(values, len(values))
    return values


pair = st.tuples(st.floats(0.01, 10), st.floats(0.5, 20))
pairs = st.lists(pair, min_size=5, max_size=40)


@given(samples=pairs, seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_the_slowdown_is_the_median_of_paired_ratios_inside_its_interval(
    samples: list[tuple[float, float]], seed: int
) -> None:
    original = [seconds for seconds, _ in samples]
    bundle = [seconds * ratio for seconds, ratio in samples]
    slowdown, (low, high) = slowdown_of(original, bundle, seed)
    ratios = [ratio for _, ratio in samples]
    assert slowdown == pytest.approx(statistics.median(ratios))
    assert low <= slowdown * (1 + 1e-12)
    assert slowdown * (1 - 1e-12) <= high
    if widening(np.log(ratios)) == 1:
        assert min(ratios) * (1 - 1e-12) <= low
        assert high <= max(ratios) * (1 + 1e-12)
    assert slowdown_of(original, bundle, seed) == (slowdown, (low, high))


def test_pairs_are_compared_with_one_another_and_not_as_two_heaps() -> None:
    # The machine gets slower with each pair.
    original = [1.0, 2.0, 4.0, 8.0, 16.0]
    slowdown, interval = slowdown_of(original, [3.0 * seconds for seconds in original], 0)
    assert slowdown == 3.0
    assert interval == (3.0, 3.0)
    assert slowdown_of(original, list(reversed(original)), 0)[0] == 1.0
    assert slowdown_of([1, 1, 1, 1, 10], [2, 2, 2, 9, 9], 0)[0] == 2.0


@pytest.mark.parametrize("count", [17, 41])
def test_the_interval_is_that_of_the_bootstrap_of_the_median(count: int) -> None:
    # The median of a resample is at most the k-th smallest with a binomial probability.
    ratios = by_turns([1.0 + number for number in range(count)])
    below = [
        sum(
            math.comb(count, hits) * (k / count) ** hits * (1 - k / count) ** (count - hits)
            for hits in range(count // 2 + 1, count + 1)
        )
        for k in range(count + 1)
    ]
    expected = [next(float(k) for k in range(1, count + 1) if below[k] > share) for share in (0.025, 0.975)]
    _, interval = slowdown_of([1.0] * count, ratios, 0)
    assert list(interval) == expected


@pytest.mark.parametrize(("count", "rank"), [(5, 1), (7, 1), (9, 2), (14, 3)])
def test_the_interval_of_few_pairs_is_that_of_the_sign_test(count: int, rank: int) -> None:
    ratios = by_turns([1.0 + number for number in range(count)])
    assert slowdown_of([1.0] * count, ratios, 0)[1] == (sorted(ratios)[rank - 1], sorted(ratios)[-rank])


@pytest.mark.parametrize("count", [6, 7, 9, 12, 14])
def test_the_interval_of_few_pairs_holds_the_slowdown_as_often_as_it_says(count: int) -> None:
    courses = np.exp(np.random.default_rng(count).normal(math.log(3.0), 0.05, (1000, count)))
    intervals = [slowdown_of([1.0] * count, list(ratios), 0)[1] for ratios in courses]
    assert statistics.fmean(low <= 3.0 <= high for low, high in intervals) > 0.93


def test_samples_that_are_like_their_neighbours_widen_the_interval() -> None:
    values = [3.0 + 0.01 * number for number in range(40)]
    _, (low, high) = slowdown_of([1.0] * 40, by_turns(values), 0)
    _, (lower, higher) = slowdown_of([1.0] * 40, values, 0)
    assert lower < low < high < higher


@pytest.mark.parametrize("lasts", [2, 5, 15])
def test_the_interval_of_samples_that_share_what_lasts_holds_the_slowdown_nearly_as_often_as_it_says(
    lasts: int,
) -> None:
    chance, held = np.random.default_rng(lasts), []
    left = math.exp(-1 / lasts)
    for _ in range(300):
        shared, logs = chance.normal(0, 0.03), []
        for noise, more in zip(chance.normal(0, 0.03, 150), chance.normal(0, 0.03, 150), strict=True):
            shared = left * shared + math.sqrt(1 - left**2) * more
            logs.append(shared + noise)
        low, high = slowdown_of([1.0] * 150, list(np.exp(logs)), 0)[1]
        held.append(low <= 1.0 <= high)
    assert statistics.fmean(held) > 0.84


def test_the_interval_narrows_with_more_pairs() -> None:
    ratios = [2.0, 2.1, 1.9, 2.5, 1.6, 2.2, 1.8, 2.05, 1.95]
    widths = []
    for times in (1, 4, 16):
        _, (low, high) = slowdown_of([1.0] * (9 * times), ratios * times, 7)
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_another_seed_gives_another_bootstrap_of_the_same_median() -> None:
    ratios = [1.0 + 0.37 * (number * 7 % 41) / 41 for number in range(40)]
    answers = [slowdown_of([1.0] * 40, ratios, seed) for seed in range(8)]
    assert len({slowdown for slowdown, _ in answers}) == 1
    assert len({interval for _, interval in answers}) > 1


def test_pairs_that_promise_nothing_end_with_the_time_they_may_take_but_not_before_the_fewest() -> None:
    chance = random.Random(0)

    def noisy() -> tuple[float, float]:
        return 1.0, chance.uniform(1.0, 9.0)

    allowed = Latency(pairs=7, max_pairs=100)
    for longest, few in ((1.0, 7), (200.0, 60)):
        original, bundle, settled = timed_pairs(noisy, allowed, longest=longest)
        assert not settled
        assert len(original) == len(bundle) >= 7
        assert len(original) <= few
    assert len(timed_pairs(noisy, allowed)[0]) == 100
