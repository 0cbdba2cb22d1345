"""Judge a candidate by paired samples: met, missed, at the edge of the band, or too noisy to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from taylor_ops.config.latency import Latency
from taylor_ops.latency.intervals import (
    ends,
    looks,
    median_rank,
    rank_at,
    ranks_of_looks,
    ratio_interval,
    walsh_averages,
    widening,
)
from taylor_ops.progress import Progress, silent

Sample = Callable[[], tuple[float, float]]
Verdict = Literal["met", "missed", "edge", "noisy"]

_RESAMPLES = 2000
_FEW = 15
# Over all looks. A false success would be repeated to users, a false miss costs one more candidate.
_FALSELY_MET = 0.001
_FALSELY_MISSED = 0.05
# Of a candidate that further loadings will confirm or not.
_FALSELY_SCREENED = 0.025
_CONFIDENCE = 0.95
_LOOKS_BEFORE_ANOTHER = 4
_LOOKS_BEFORE_HOPELESS = 10
# If an interval is predicted to be this many times too wide after the most pairs, it will not become narrow enough.
_HOPELESS = 1.25


def judged_pairs(
    sample: Sample,
    settings: Latency,
    progress: Progress = silent,
    another: Callable[[float], bool] = lambda _slowdown: False,
    screening: bool = False,
) -> tuple[list[float], list[float], Verdict]:
    """Take as many pairs as decide whether the slowdown meets the target.

    The verdict is one of these:

    - `met`: The interval lies inside the band around the target.
    - `missed`: The interval lies outside of the band.
    - `edge`: The slowdown lies outside of the inner half of the band and `another` plan is left to try. Or the most
      pairs give a narrow interval that still holds an end of the band.
    - `noisy`: The interval is too wide after the most pairs, or is predicted to be by far.

    Args:
        sample: Times one pair: seconds of the original and of the candidate.
        settings: The target, its tolerance and the numbers of pairs.
        progress: Receives the number of pairs so far, and how many are expected to decide.
        another: Whether a plan nearer to the target is left to try if this candidate has the given slowdown.
        screening: Whether further loadings of the models will confirm a candidate that meets the target. It then meets
            it as surely as a 95 % interval says, after a third of the time that is asked for.

    Returns:
        The seconds of the original, the seconds of the candidate, and the verdict.
    """
    low, target, high = (math.log(settings.target_slowdown * (1 + side * settings.tolerance)) for side in (-1, 0, 1))
    falsely_met = _FALSELY_SCREENED if screening else _FALSELY_MET
    least_seconds = settings.least_seconds / 3 if screening else settings.least_seconds
    met_ranks, missed_ranks = (
        ranks_of_looks(settings.pairs, settings.max_pairs, error) for error in (falsely_met, _FALSELY_MISSED / 2)
    )
    original: list[float] = []
    bundle: list[float] = []
    expected = settings.pairs
    for number, samples in enumerate(looks(settings.pairs, settings.max_pairs)):
        while len(original) < samples:
            first, second = sample()
            original.append(first)
            bundle.append(second)
            progress(len(original), max(expected, len(original)))
        ratios = np.asarray(bundle) / np.asarray(original)
        averages, wider = walsh_averages(np.log(ratios)), widening(np.log(ratios))
        slowdown = math.log(float(np.median(ratios)))
        least, most = ends(averages, met_ranks[number], wider)
        lasted = sum(original) + sum(bundle)
        enough = samples == settings.max_pairs or lasted >= least_seconds
        if enough and low <= least and most <= high and low <= slowdown <= high:
            return original, bundle, "met"
        expected = _expected(samples, (least, most), (low, slowdown, high), settings, least_seconds / lasted)
        least, most = ends(averages, missed_ranks[number], wider)
        if (most < low and slowdown < low) or (high < least and high < slowdown):
            return original, bundle, "missed"
        least, most = map(math.exp, ends(averages, rank_at(samples, _CONFIDENCE), wider))
        off_centre = not (low + target) / 2 <= slowdown <= (target + high) / 2
        off_centre = off_centre and not least <= settings.target_slowdown <= most
        if number + 1 >= _LOOKS_BEFORE_ANOTHER and off_centre and another(math.exp(slowdown)):
            return original, bundle, "edge"
        final_width = math.log(most / least) * math.sqrt(samples / settings.max_pairs)
        if number + 1 >= _LOOKS_BEFORE_HOPELESS and final_width > _HOPELESS * (high - low) / 2:
            return original, bundle, "noisy"
    # A narrow interval at the edge of the band needs a candidate nearer to the middle, not more pairs.
    narrow = math.log(most / least) <= (high - low) / 2
    return original, bundle, "edge" if narrow else "noisy"


def _expected(
    samples: int, interval: tuple[float, float], band: tuple[float, float, float], settings: Latency, times: float
) -> int:
    """How many pairs are likely to decide, from so many of them, their interval, and where the slowdown lies.

    They must last `times` as long as these did.
    """
    (least, most), (low, slowdown, high) = interval, band
    room = 2 * max(min(high - slowdown, slowdown - low), (high - low) / 8)
    by_width = samples * ((most - least) / room) ** 2 if math.isfinite(most - least) else 2 * samples
    return int(min(settings.max_pairs, max(by_width, samples * times, samples + 1)))


def timed_pairs(
    sample: Sample,
    settings: Latency,
    progress: Progress = silent,
    *,
    widest: float | None = None,
    shortest: float = 0.0,
    longest: float = math.inf,
) -> tuple[list[float], list[float], bool]:
    """Take as many pairs as give a narrow 95 % interval, without judging where it lies.

    Args:
        sample: Times one pair: seconds of the original and of the bundle.
        settings: The tolerance and the numbers of pairs.
        progress: Receives the number of pairs so far, and of the most.
        widest: Width of the interval over the slowdown at which it is narrow. None: a third of the band around the
            target.
        shortest: Seconds that all pairs together last at least.
        longest: Once the fewest pairs are taken and last as long as this, no more are taken.

    Returns:
        The seconds of the original, the seconds of the bundle, and whether their interval is narrow.
    """
    original: list[float] = []
    bundle: list[float] = []
    widest = 2 * settings.tolerance / 3 if widest is None else widest
    while len(original) < settings.max_pairs:
        first, second = sample()
        original.append(first)
        bundle.append(second)
        progress(len(original), settings.max_pairs)
        if len(original) >= settings.pairs:
            ratios = np.asarray(bundle) / np.asarray(original)
            least, most = ratio_interval(ratios, _CONFIDENCE)
            lasted = sum(original) + sum(bundle)
            if most - least <= widest * float(np.median(ratios)) and lasted >= shortest:
                return original, bundle, True
            if lasted >= longest:
                break
    return original, bundle, False


def slowdown_of(original: Sequence[float], bundle: Sequence[float], seed: int) -> tuple[float, tuple[float, float]]:
    """Median of the paired ratios bundle / original, and its bootstrap 95 % interval (percentile method).

    A bootstrap interval of few pairs is too narrow: with 7 it holds the median in 87.5 % of cases. Fewer than 15 pairs
    therefore get the interval of the sign test. Fewer than 6 pairs have no such interval at 95 %. They get the interval
    from the smallest to the largest ratio. Pairs that are like their neighbours widen any of these (`widening`).

    Args:
        original: Seconds of the original in one loading, in the order in which they were taken.
        bundle: Seconds of the bundle.
        seed: Seed of the bootstrap.
    """
    taken = np.asarray(bundle) / np.asarray(original)
    ratios = np.sort(taken)
    if len(ratios) < _FEW:
        rank = max(1, median_rank(len(ratios), _CONFIDENCE))
        low, high = ratios[rank - 1], ratios[-rank]
    else:
        draws = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    wider, middle = widening(np.log(taken)), float(np.median(ratios))
    if wider > 1:
        low, high = (middle * (end / middle) ** wider for end in (low, high))
    return float(np.median(taken)), (float(low), float(high))
