"""What a suspect says of each recipient, and how likely chance says as much of one who has nothing to do with it.

A suspect is added up into one number b[k] for each bucket of the pattern, in whatever way finds a mark best: b uses the
key, the original and the suspect, but no recipient. For a recipient with signs C, z = <b, C> / ||b||. The signs of one
who had no part in the suspect are 65 536 coin tosses that b does not depend on, whatever marks and noise are in it. So
Hoeffding's inequality gives P(z >= t) <= exp(-t^2 / 2): no normal approximation, no estimate of any variance.
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
# Of the root mean square of a column: what differs less is taken for rounding in float32.
_FLOOR = 1e-5


def scores(aligned: Aligned) -> Tensor:
    """What each weight [h, f] says of the sign of its mark, by how far it is from the original's and by the noise.

    The noise of a weight is estimated from weights like it: those of its column, and those of its size. A weight that
    was pruned away says nothing.
    """
    true = aligned.original
    apart = (aligned.suspect - true) * (aligned.suspect != 0)
    scale = true.square().mean(0).sqrt().clamp_min(1e-30)
    noise = apart.abs().median(0).values.clamp_min(_FLOOR * scale)
    apart = (apart / noise).clamp(-_CLIP, _CLIP)
    size = (true / scale).abs()
    bins = _equal_bins(size)
    squares = np.bincount(bins, weights=apart.square().flatten().numpy(), minlength=_BINS)
    counts = np.bincount(bins, minlength=_BINS)
    spread = squares / np.maximum(counts, 1)
    weight = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    said = apart * STRENGTH * true / noise * torch.from_numpy(weight[bins]).float().view(true.shape)
    # Where a mark of this strength shows above the noise, one weight says no more than another.
    return said.clamp(-1, 1)


def _equal_bins(size: Tensor) -> NDArray[np.int64]:
    """The bin of each size, all flattened; about as many in each."""
    values = size.flatten().numpy()
    edges = np.quantile(values[:: max(1, len(values) // 10_000)], np.linspace(0, 1, _BINS + 1)[1:-1])
    bins: NDArray[np.int64] = np.digitize(values, edges)
    return bins


def add_up(total: NDArray[np.float64], aligned: Aligned, pattern: LayerPattern, places: Tensor) -> None:
    """Add what one MLP says to the 65 536 buckets. places: [F], of every original neuron, in the pattern's order."""
    height, width = aligned.suspect.shape
    # Where each neuron of the pattern stands in the suspect, -1 for one that does not.
    stands = np.full(len(places), -1)
    stands[places[aligned.neuron].numpy()] = np.arange(width)
    row, column = pattern.row - aligned.row, stands[pattern.neuron]
    here = (row >= 0) & (row < height) & (column >= 0)
    said = scores(aligned).numpy()[row[here], column[here]] * pattern.sign[here]
    total += np.bincount(pattern.bucket[here], weights=said, minlength=BUCKETS)


def deviation(total: NDArray[np.float64], code: NDArray[np.int8]) -> float:
    """z of one recipient; 0 where there is nothing to go by."""
    norm = float(np.linalg.norm(total))
    return float(total @ code) / norm if norm > 0 else 0.0


def log_p(z: float) -> float:
    """Natural logarithm of the bound on the probability that chance gives z or more."""
    return -z * z / 2 if z > 0 else 0.0


def log_p_of_any(z: float, candidates: int) -> float:
    """The same for the largest of so many recipients (Bonferroni); 0 at most, which is certainty."""
    return min(0.0, log_p(z) + math.log(candidates))
