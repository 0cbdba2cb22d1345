"""How strongly a suspect points to each recipient, and how likely chance does so for an uninvolved recipient.

A suspect is added up into one number b[k] for each bucket of the pattern, in the way that finds a mark best. b uses the
key, the original and the suspect, but no recipient. For a recipient with signs C, z = <b, C> / ||b||.

The signs of a recipient who had no part in the suspect are 65 536 coin tosses on which b does not depend, whatever
marks and noise are in the suspect. So Hoeffding's inequality gives P(z >= t) <= exp(-t^2 / 2), without a normal
approximation and without an estimate of any variance.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taylor_ops.config.evidence import STRENGTH
from taylor_ops.evidence.alignment import Aligned
from taylor_ops.evidence.pattern import BUCKETS, LayerPattern

_CLIP = 4.0
_BINS = 12
# A share of the root mean square of a column. Smaller differences count as rounding in float32.
_FLOOR = 1e-5


def scores(aligned: Aligned) -> Tensor:
    """Score [h, f] how clearly each weight shows the sign of its mark: its change from the original against the noise.

    The noise of a weight is estimated from similar weights: those of its column, and those of its size. A weight that
    was pruned away scores 0.
    """
    true = aligned.original
    difference = (aligned.suspect - true) * (aligned.suspect != 0)
    scale = true.square().mean(0).sqrt().clamp_min(1e-30)
    noise = difference.abs().median(0).values.clamp_min(_FLOOR * scale)
    difference = (difference / noise).clamp(-_CLIP, _CLIP)
    size = (true / scale).abs()
    bins = _equal_bins(size)
    squares = np.bincount(bins, weights=difference.square().flatten().numpy(), minlength=_BINS)
    counts = np.bincount(bins, minlength=_BINS)
    spread = squares / np.maximum(counts, 1)
    weight = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    score = difference * STRENGTH * true / noise * torch.from_numpy(weight[bins]).float().view(true.shape)
    # When a mark of this strength shows above the noise, all weights count alike.
    return score.clamp(-1, 1)


def _equal_bins(size: Tensor) -> NDArray[np.int64]:
    """The bin of each size, flattened. All bins have about as many sizes."""
    values = size.flatten().numpy()
    edges = np.quantile(values[:: max(1, len(values) // 10_000)], np.linspace(0, 1, _BINS + 1)[1:-1])
    bins: NDArray[np.int64] = np.digitize(values, edges)
    return bins


def add_up(total: NDArray[np.float64], aligned: Aligned, pattern: LayerPattern, places: Tensor) -> None:
    """Add the scores of one MLP to the buckets.

    Args:
        total: The sum [65 536] of each bucket, which this changes.
        aligned: Columns of the suspect.
        pattern: The pattern of the MLP.
        places: Place [F] of every original neuron in the order of the pattern.
    """
    height, width = aligned.suspect.shape
    # -1 for a neuron that the suspect does not have.
    column_of = np.full(len(places), -1)
    column_of[places[aligned.neuron].numpy()] = np.arange(width)
    row, column = pattern.row - aligned.row, column_of[pattern.neuron]
    found = (row >= 0) & (row < height) & (column >= 0)
    signed = scores(aligned).numpy()[row[found], column[found]] * pattern.sign[found]
    total += np.bincount(pattern.bucket[found], weights=signed, minlength=BUCKETS)


def deviation(total: NDArray[np.float64], code: NDArray[np.int8]) -> float:
    """z of one recipient; 0 if nothing of the suspect was added up."""
    norm = float(np.linalg.norm(total))
    return float(total @ code) / norm if norm > 0 else 0.0


def log_p(z: float) -> float:
    """Natural logarithm of the bound on the probability that chance gives z or more."""
    return -z * z / 2 if z > 0 else 0.0


def log_p_of_any(z: float, candidates: int) -> float:
    """The same for the largest z among `candidates` recipients (Bonferroni). It is at most 0, which is certainty."""
    return min(0.0, log_p(z) + math.log(candidates))
