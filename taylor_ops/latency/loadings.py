"""Confirm a candidate in further loadings of the models, which are what its interval counts.

Where a model lies in memory differs from loading to loading, and so does its speed. Many pairs of one loading say
nothing of this. The logarithms of the slowdowns of single loadings are taken for a sample of a normal distribution.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from taylor_ops.config.latency import Latency
from taylor_ops.latency.judging import Sample, Verdict, timed_pairs
from taylor_ops.progress import Progress

# The 97.5 % and the 99 % quantiles of Student's t for 1, 2, 3 ... degrees of freedom.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201)
_T_99 = (31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764, 2.718)
_MOST_LOADINGS = len(_T_99) + 1
# A few loadings are alike by chance now and then: the narrower the band, the likelier that only such ones end there.
_WIDE, _FEWEST_IF_WIDE, _FEWEST = 0.1, 3, 5
# More loadings than these are for a candidate to which no other is left.
_ENOUGH = 8
_LOADINGS_BEFORE_HOPELESS = 6
# If the interval is predicted to be this many times too wide after the most loadings, more of them do not help.
_HOPELESS = 1.25


class Pairs(NamedTuple):
    """Seconds of original and bundle in the pairs of one loading, in the order in which they were taken."""

    original: Sequence[float]
    bundle: Sequence[float]

    @property
    def slowdown(self) -> float:
        """The median of the paired ratios."""
        return float(np.median(np.asarray(self.bundle) / np.asarray(self.original)))


class OverLoadings(NamedTuple):
    """What several loadings say of a slowdown.

    Attributes:
        slowdown: Geometric mean of the slowdowns of the loadings.
        ci98: Its 98 % interval, by Student's t. It is that sure because loadings are looked at several times.
        of_one: Where the slowdown of one more loading lies in 95 % of cases (prediction interval of a normal sample).
    """

    slowdown: float
    ci98: tuple[float, float]
    of_one: tuple[float, float]


def fewest_loadings(tolerance: float) -> int:
    """How many loadings a plan needs at least to meet a target within a relative tolerance."""
    return _FEWEST_IF_WIDE if tolerance >= _WIDE else _FEWEST


def over_loadings(slowdowns: Sequence[float]) -> OverLoadings:
    """The slowdown and its intervals from those of 2 to 12 loadings."""
    logs, number = [math.log(slowdown) for slowdown in slowdowns], len(slowdowns)
    centre, apart = statistics.fmean(logs), statistics.stdev(logs)

    def interval(half: float) -> tuple[float, float]:
        return math.exp(centre - half), math.exp(centre + half)

    return OverLoadings(
        math.exp(centre),
        interval(_T_99[number - 2] * apart / math.sqrt(number)),
        interval(_T_975[number - 2] * apart * math.sqrt(1 + 1 / number)),
    )


def confirmed(
    load: Callable[[], Sample],
    first: Pairs,
    settings: Latency,
    progress: Progress,
    another: Callable[[float], bool],
) -> tuple[list[Pairs], Verdict]:
    """Load the models of a candidate anew until all loadings together decide whether it meets the target.

    Each further loading takes as many pairs as give an interval no wider than the band around the target. The verdicts
    are those of `judged_pairs`, for the interval over all loadings. Of `met`, this interval is as sure as 98 % says.

    Args:
        load: Loads both models anew. Returns a function that times one pair.
        first: The pairs of the first loading, in which the candidate met the target.
        settings: The target, its tolerance and the numbers of pairs.
        progress: Receives the number of pairs so far, those of the first loading counted, and how many are expected.
        another: Whether a plan nearer to the target is left to try if this candidate has the given slowdown.

    Returns:
        The pairs of each loading, the first included, and the verdict.
    """
    low, high = (settings.target_slowdown * (1 + side * settings.tolerance) for side in (-1, 1))
    fewest = fewest_loadings(settings.tolerance)
    loadings, band = [first], math.log(high / low)
    while len(loadings) < _MOST_LOADINGS:
        before, left = sum(len(pairs.original) for pairs in loadings), max(1, fewest - len(loadings))

        def report(taken: int, _most: int, before: int = before, left: int = left) -> None:
            progress(before + taken, max(before + left * settings.pairs, before + taken))

        loadings.append(_pairs_of_one(load(), settings, settings.least_seconds / fewest, report))
        number = len(loadings)
        if number < fewest:
            continue
        slowdown, (least, most), _ = over_loadings([pairs.slowdown for pairs in loadings])
        lasted = sum(sum(pairs.original) + sum(pairs.bundle) for pairs in loadings)
        enough = lasted >= settings.least_seconds or len(loadings[-1].original) == settings.max_pairs
        if low <= least and most <= high and enough:
            return loadings, "met"
        if most < low or high < least:
            return loadings, "missed"
        half = math.log(most / least) / 2
        room = math.log(min(high / slowdown, slowdown / low))
        if half * _narrowing(number, _ENOUGH) > room and another(slowdown):
            return loadings, "edge"
        if number >= _LOADINGS_BEFORE_HOPELESS and half * _narrowing(number, _MOST_LOADINGS) > _HOPELESS * band / 2:
            return loadings, "noisy"
    # A narrow interval at the edge of the band needs a candidate nearer to the middle, not more loadings.
    return loadings, "edge" if half <= band / 4 else "noisy"


def _narrowing(loadings: int, more: int) -> float:
    """How much narrower an interval is likely to be after `more` loadings."""
    return math.sqrt(loadings / more) * _T_99[more - 2] / _T_99[loadings - 2]


def _pairs_of_one(sample: Sample, settings: Latency, shortest: float, progress: Progress) -> Pairs:
    original, bundle, _ = timed_pairs(sample, settings, progress, widest=2 * settings.tolerance, shortest=shortest)
    return Pairs(original, bundle)
