"""Judge a candidate by paired samples: met, missed, or not yet known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from taylor_ops.config.latency import Latency
from taylor_ops.errors import WorkFailed
from taylor_ops.latency.intervals import ends, looks, median_rank, ranks_of_looks, ratio_interval, walsh_averages
from taylor_ops.progress import Progress

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


# An interval that promises to be so many times too wide after the most pairs will not come out narrow enough.
_HOPELESS = 1.25


def judged_pairs(
    sample: Sample,
    settings: Latency,
    progress: Progress = lambda _done, _total: None,
    another: Callable[[float], bool] = lambda _slowdown: False,
) -> tuple[list[float], list[float], Verdict]:
    """Paired seconds of original and candidate, as many as decide whether the slowdown meets the target.

    another: whether a plan nearer to the target is left to try if this one has the given slowdown. `edge` where one is
    and this one lies in the outer half of the band, or where the slowdown is known well after the most pairs and is one
    end of the band as far as they tell; `noisy` where it is not known, or will not be by far.
    """
    low, target, high = (math.log(settings.target_slowdown * (1 + side * settings.tolerance)) for side in (-1, 0, 1))
    meets, misses = (
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
        least, most = ends(averages, meets[number])
        enough = samples == settings.max_pairs or sum(original) + sum(bundle) >= settings.min_seconds
        if enough and low <= least and most <= high and low <= slowdown <= high:
            return original, bundle, "met"
        least, most = ends(averages, misses[number])
        if (most < low and slowdown < low) or (high < least and high < slowdown):
            return original, bundle, "missed"
        least, most = ratio_interval(ratios, _CONFIDENCE)
        off = not (low + target) / 2 <= slowdown <= (target + high) / 2
        off = off and not least <= settings.target_slowdown <= most
        if number + 1 >= _LOOKS_BEFORE_ANOTHER and off and another(math.exp(slowdown)):
            return original, bundle, "edge"
        promised = math.log(most / least) * math.sqrt(samples / settings.max_pairs)
        if number + 1 >= _LOOKS_BEFORE_HOPELESS and promised > _HOPELESS * (high - low) / 2:
            return original, bundle, "noisy"
    # Narrow enough and yet on the edge of the band: a candidate nearer to its middle is needed.
    known = math.log(most / least) <= (high - low) / 2
    return original, bundle, "edge" if known else "noisy"


def steady_pairs(sample: Sample, settings: Latency, progress: Progress) -> tuple[list[float], list[float]]:
    """Paired seconds, as many as give a 95 % interval no wider than a third of the band around the target.

    Raises `WorkFailed` where the most pairs that are allowed do not.
    """
    original, bundle, settled = timed_pairs(sample, settings, progress)
    if settled:
        return original, bundle
    raise WorkFailed(
        f"the machine is too noisy to measure a slowdown within {settings.tolerance:.0%}: {len(original)} pairs do not "
        "settle it",
        "end what else runs on this machine, then run again",
    )


def timed_pairs(
    sample: Sample, settings: Latency, progress: Progress = lambda _done, _total: None
) -> tuple[list[float], list[float], bool]:
    """Paired seconds as `steady_pairs` takes them, and whether they settle it: for figures that promise nothing."""
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

    From few pairs that would be too narrow, from 7 it holds the median in 87.5 % of cases: there it is that of the sign
    test, and of fewer than 6 pairs, which give no such interval, from the least to the most.
    """
    ratios = np.sort(np.asarray(bundle) / np.asarray(original))
    if len(ratios) < _FEW:
        rank = max(1, median_rank(len(ratios), _CONFIDENCE))
        low, high = ratios[rank - 1], ratios[-rank]
    else:
        draws = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))
