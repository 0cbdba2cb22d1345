"""Judge a candidate by paired samples: met, missed, at the edge of the band, or too noisy to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from taylor_ops.config.latency import Latency
from taylor_ops.errors import WorkFailed
from taylor_ops.latency.intervals import ends, looks, median_rank, ranks_of_looks, ratio_interval, walsh_averages
from taylor_ops.progress import Progress, silent

Sample = Callable[[], tuple[float, float]]
Verdict = Literal["met", "missed", "edge", "noisy"]

_RESAMPLES = 2000
_FEW = 15
# Over all looks. A false success would be repeated to users, a false miss costs one more candidate.
_FALSELY_MET = 0.001
_FALSELY_MISSED = 0.05
_CONFIDENCE = 0.95
_LOOKS_BEFORE_ANOTHER = 4
_LOOKS_BEFORE_HOPELESS = 8
# If an interval is predicted to be this many times too wide after the most pairs, it will not become narrow enough.
_HOPELESS = 1.25


def judged_pairs(
    sample: Sample,
    settings: Latency,
    progress: Progress = silent,
    another: Callable[[float], bool] = lambda _slowdown: False,
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
        progress: Receives the number of pairs so far and the most that may be taken.
        another: Whether a plan nearer to the target is left to try if this candidate has the given slowdown.

    Returns:
        The seconds of the original, the seconds of the candidate, and the verdict.
    """
    low, target, high = (math.log(settings.target_slowdown * (1 + side * settings.tolerance)) for side in (-1, 0, 1))
    met_ranks, missed_ranks = (
        ranks_of_looks(settings.pairs, settings.max_pairs, error) for error in (_FALSELY_MET, _FALSELY_MISSED / 2)
    )
    original: list[float] = []
    bundle: list[float] = []
    for number, samples in enumerate(looks(settings.pairs, settings.max_pairs)):
        while len(original) < samples:
            first, second = sample()
            original.append(first)
            bundle.append(second)
            progress(len(original), settings.max_pairs)
        ratios = np.asarray(bundle) / np.asarray(original)
        averages = walsh_averages(np.log(ratios))
        slowdown = math.log(float(np.median(ratios)))
        least, most = ends(averages, met_ranks[number])
        enough = samples == settings.max_pairs or sum(original) + sum(bundle) >= settings.min_seconds
        if enough and low <= least and most <= high and low <= slowdown <= high:
            return original, bundle, "met"
        least, most = ends(averages, missed_ranks[number])
        if (most < low and slowdown < low) or (high < least and high < slowdown):
            return original, bundle, "missed"
        least, most = ratio_interval(ratios, _CONFIDENCE)
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


def steady_pairs(sample: Sample, settings: Latency, progress: Progress) -> tuple[list[float], list[float]]:
    """Take as many pairs as give a 95 % interval no wider than a third of the band around the target.

    Raises `WorkFailed` if the most pairs that are allowed do not.
    """
    original, bundle, settled = timed_pairs(sample, settings, progress)
    if settled:
        return original, bundle
    raise WorkFailed(
        f"the machine is too noisy to measure a slowdown within {settings.tolerance:.0%}: {len(original)} pairs do not "
        "settle it",
        "end the other programs on this machine, then run again",
    )


def timed_pairs(
    sample: Sample, settings: Latency, progress: Progress = silent
) -> tuple[list[float], list[float], bool]:
    """Take pairs as `steady_pairs` does, for figures that promise nothing. Also returns whether they settle it."""
    original: list[float] = []
    bundle: list[float] = []
    widest = 2 * settings.tolerance / 3
    while len(original) < settings.max_pairs:
        first, second = sample()
        original.append(first)
        bundle.append(second)
        progress(len(original), settings.max_pairs)
        if len(original) >= settings.pairs:
            ratios = np.asarray(bundle) / np.asarray(original)
            least, most = ratio_interval(ratios, _CONFIDENCE)
            if most - least <= widest * float(np.median(ratios)):
                return original, bundle, True
    return original, bundle, False


def slowdown_of(original: Sequence[float], bundle: Sequence[float], seed: int) -> tuple[float, tuple[float, float]]:
    """Median of the paired ratios bundle / original, and its bootstrap 95 % interval (percentile method).

    A bootstrap interval of few pairs is too narrow: with 7 it holds the median in 87.5 % of cases. Fewer than 15 pairs
    therefore get the interval of the sign test. Fewer than 6 pairs have no such interval at 95 %. They get the interval
    from the smallest to the largest ratio.
    """
    ratios = np.sort(np.asarray(bundle) / np.asarray(original))
    if len(ratios) < _FEW:
        rank = max(1, median_rank(len(ratios), _CONFIDENCE))
        low, high = ratios[rank - 1], ratios[-rank]
    else:
        draws = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))
