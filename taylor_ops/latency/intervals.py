"""Intervals for the centre of paired ratios, valid also if the samples are looked at repeatedly as they come in.

They use Wilcoxon's signed ranks: the ends of an interval are two of the sorted means of pairs of samples (Walsh
averages). They are exact if the noise is independent from pair to pair and as likely to lengthen either model's time.
The logarithms of the ratios then lie symmetrically about the logarithm of the slowdown.

A machine may be slow for seconds at a time, and samples that follow one another are then alike. An interval is widened
by what this takes from the number of samples (`widening`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

_LEAST_MORE = 4
_SHARE_MORE = 3
_FAR_OUT = 3.0
_DEVIATIONS_OF_A_NORMAL = 1.4826


def looks(first: int, most: int) -> tuple[int, ...]:
    """The number of samples at each look: `first`, then each time a third more but at least 4, and `most` at last."""
    numbers = [first]
    while numbers[-1] < most:
        numbers.append(min(most, numbers[-1] + max(_LEAST_MORE, numbers[-1] // _SHARE_MORE)))
    return tuple(numbers)


@cache
def ranks_of_looks(first: int, most: int, error: float) -> tuple[int, ...]:
    """For each look, the rank of the smallest and of the largest Walsh average that end its interval.

    Rank 0 means that there is no interval yet. The ranks are the largest for which the chance that the centre lies
    beyond the same end at any look is at most `error`. The first look gets half of this chance, the later ones equal
    shares of the rest. What a look leaves of its share goes to the next (Bonferroni).
    """
    numbers, spent, ranks = looks(first, most), 0.0, []
    for look, samples in enumerate(numbers):
        allowed = error * (1 if len(numbers) == 1 else (1 + look / (len(numbers) - 1)) / 2)
        rank = int(np.searchsorted(_chances(samples), allowed - spent, side="right"))
        spent += float(_chances(samples)[rank - 1]) if rank else 0.0
        ranks.append(rank)
    return tuple(ranks)


def widening(values: Sequence[float] | NDArray[np.float64]) -> float:
    """By how much an interval for the centre of `values` [n] is too narrow if it takes them for independent.

    The factor is at least 1. Its square is the sum of the autocorrelations at all lags, of which pairs of neighbouring
    lags are taken until a pair sums to less than 0 (initial positive sequence, Geyer, Statistical Science 7, 1992).
    Values far from the median count as if they were nearer, because a single one could hide what the others share.
    """
    samples = np.asarray(values, dtype=np.float64)
    apart = samples - np.median(samples)
    far = _FAR_OUT * _DEVIATIONS_OF_A_NORMAL * float(np.median(np.abs(apart)))
    apart = np.clip(apart, -far, far)
    apart -= apart.mean()
    whole = np.correlate(apart, apart, mode="full")[len(apart) - 1 :]
    if whole[0] <= 0:
        return 1.0
    lags = whole[: len(whole) // 2 * 2].reshape(-1, 2).sum(1) / whole[0]
    positive = lags[: int(np.argmax(lags <= 0))] if (lags <= 0).any() else lags
    return math.sqrt(max(1.0, 2 * float(positive.sum()) - 1))


def walsh_averages(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of every sample with every other and with itself, in any order: [n (n + 1) / 2]."""
    samples = np.asarray(values, dtype=np.float64)
    left, right = _pairs_of(len(samples))
    averages: NDArray[np.float64] = (samples[left] + samples[right]) / 2
    return averages


@lru_cache(maxsize=4)
def _pairs_of(samples: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    left, right = np.triu_indices(samples)
    return left, right


def ends(averages: NDArray[np.float64], rank: int, wider: float = 1.0) -> tuple[float, float]:
    """The `rank`-th smallest and the `rank`-th largest average, `wider` times as far from the median of all of them.

    Rank 0 gives the whole line.
    """
    if not rank:
        return -np.inf, np.inf
    last, half = len(averages) - 1, len(averages) // 2
    # To sort all of them would take most of the time of a calibration's arithmetic.
    placed = np.partition(averages, sorted({rank - 1, last // 2, half, last + 1 - rank}))
    low, middle, high = float(placed[rank - 1]), float(placed[last // 2] + placed[half]) / 2, float(placed[-rank])
    # At the very edge of a band, a rounding would decide.
    if wider == 1:
        return low, high
    return middle - wider * (middle - low), middle + wider * (high - middle)


def ratio_interval(ratios: Sequence[float] | NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Interval for the centre of the distribution of `ratios` [n], in the order in which they were taken.

    It is for a single look.
    """
    logs = np.log(ratios)
    low, high = np.exp(ends(walsh_averages(logs), rank_at(len(logs), confidence), widening(logs)))
    return float(low), float(high)


def rank_at(samples: int, confidence: float) -> int:
    """The rank of the averages that end an interval of so many samples, for a single look."""
    return int(np.searchsorted(_chances(samples), (1 - confidence) / 2, side="right"))


@cache
def median_rank(samples: int, confidence: float) -> int:
    """The rank of the smallest and of the largest of so many samples that enclose the median of their distribution.

    The rank is 0 if no samples do. It follows from the sign test, which assumes nothing about the noise.
    """
    rank, beyond = 0, 1
    while 2 * beyond / 2**samples <= 1 - confidence:
        rank += 1
        beyond += math.comb(samples, rank)
    return rank


@cache
def _chances(samples: int) -> NDArray[np.float64]:
    """Chances that rank 1, 2, 3 ... errs: that the ranks of the samples beyond the centre sum to at most 0, 1, 2 ..."""
    sums = np.zeros(samples * (samples + 1) // 2 + 1)
    sums[0] = 1
    for rank in range(1, samples + 1):
        sums[rank:] = (sums[rank:] + sums[:-rank]) / 2
        sums[:rank] /= 2
    return np.minimum(np.cumsum(sums), 1)
