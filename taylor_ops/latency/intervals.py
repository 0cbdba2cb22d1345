"""Intervals for the centre of paired ratios, also where samples are looked at again and again as they come in.

By Wilcoxon's signed ranks: ends of an interval are two of the means of pairs of samples (Walsh averages), in order.
That is exact for noise that is independent from pair to pair and as likely to lengthen either model's time: then the
logarithms of the ratios lie symmetrically about that of the slowdown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

_LEAST_MORE = 4
_SHARE_MORE = 3


def looks(first: int, most: int) -> tuple[int, ...]:
    """How many samples there are at each look: `first`, then a third more each time but 4 at least, `most` at last."""
    found = [first]
    while found[-1] < most:
        found.append(min(most, found[-1] + max(_LEAST_MORE, found[-1] // _SHARE_MORE)))
    return tuple(found)


@cache
def ranks_of_looks(first: int, most: int, error: float) -> tuple[int, ...]:
    """Which smallest and largest Walsh average is an end of the interval at each look; 0 for no interval yet.

    Ranks are the largest for which the chance that any look has the centre beyond the same end is at most `error`:
    half of it for the first look, the rest in equal shares; what a look leaves of it goes to the next (Bonferroni).
    """
    numbers, spent, ranks = looks(first, most), 0.0, []
    for place, samples in enumerate(numbers):
        allowed = error * (1 if len(numbers) == 1 else (1 + place / (len(numbers) - 1)) / 2)
        rank = int(np.searchsorted(_chances(samples), allowed - spent, side="right"))
        spent += float(_chances(samples)[rank - 1]) if rank else 0.0
        ranks.append(rank)
    return tuple(ranks)


def walsh_averages(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of every sample with every other and with itself, in order: [n (n + 1) / 2]."""
    samples = np.asarray(values, dtype=np.float64)
    left, right = np.triu_indices(len(samples))
    return np.sort((samples[left] + samples[right]) / 2)


def ends(averages: NDArray[np.float64], rank: int) -> tuple[float, float]:
    """The interval between the `rank`-th smallest and the `rank`-th largest; all of the line for rank 0."""
    return (float(averages[rank - 1]), float(averages[-rank])) if rank else (-np.inf, np.inf)


def ratio_interval(ratios: Sequence[float] | NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Interval for the centre of what `ratios` [n] are drawn from, for a single look."""
    rank = int(np.searchsorted(_chances(len(ratios)), (1 - confidence) / 2, side="right"))
    low, high = np.exp(ends(walsh_averages(np.log(ratios)), rank))
    return float(low), float(high)


@cache
def median_rank(samples: int, confidence: float) -> int:
    """Which smallest and largest of so many samples hold the median of what they are drawn from; 0 where none do.

    By the sign test, which asks nothing of the noise.
    """
    rank, beyond = 0, 1
    while 2 * beyond / 2**samples <= 1 - confidence:
        rank += 1
        beyond += math.comb(samples, rank)
    return rank


@cache
def _chances(samples: int) -> NDArray[np.float64]:
    """Chance that the ranks of samples beyond the centre add up to at most 0, 1, 2 ...: that rank 1, 2, 3 ... errs."""
    sums = np.zeros(samples * (samples + 1) // 2 + 1)
    sums[0] = 1
    for rank in range(1, samples + 1):
        sums[rank:] = (sums[rank:] + sums[:-rank]) / 2
        sums[:rank] /= 2
    return np.minimum(np.cumsum(sums), 1)
