"""Which rows and columns of a matrix tell it apart: not those that are zero, constant, nearly so, or repeated.

A model may hold such lines anywhere: pruned neurons and inserted blocks are zero, norms are constant, upcycled layers
repeat. To find one of them in a bundle proves nothing, and whoever has one has nothing of the original.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A line of which all values but this many are equal is found by chance.
_VALUES_THAT_TELL = 8
# A line that is constant up to this share of its size cannot be told from one that is constant, once it is rounded.
_AS_GOOD_AS_CONSTANT = 0.01
# Sorted values of so few sizes are alike in all lines of a matrix of few levels; their order tells them apart.
_FEW_SIZES = 4


def telling(lines: Tensor) -> Tensor:
    """Whether each of the lines [N, n] has values enough that are not all alike, bool [N]."""
    # If so few values differ from the others, most of the first ones do not.
    usual = lines[:, : 2 * _VALUES_THAT_TELL - 1].median(-1, keepdim=True).values
    others = (lines != usual).sum(-1) >= min(_VALUES_THAT_TELL, max(1, lines.shape[-1] // 4))
    return others & ((lines - usual).abs().sum(-1) > _AS_GOOD_AS_CONSTANT * lines.abs().sum(-1))


def first_of_each(features: Tensor) -> Tensor:
    """The rows of features [N, 4] without those that repeat an earlier row up to float32 rounding: their numbers."""
    cells = (features.double() * 2**18).round().long()
    _, of_row = torch.unique(cells, dim=0, return_inverse=True)
    first = torch.full((int(of_row.max()) + 1 if len(of_row) else 0,), len(of_row))
    first.scatter_reduce_(0, of_row, torch.arange(len(of_row)), "amin")
    return first.sort().values


def is_told_by_order(line: Tensor) -> bool:
    """Whether a line [n] has so few sizes of values that only their order tells it from another line."""
    return len(torch.unique(line.abs())) < _FEW_SIZES


def bare_columns(down: Tensor, terms: Tensor) -> tuple[int, int]:
    """How many columns of `down` [H, F] `terms` [H, K] contain bit by bit, as they are or negated, and out of how many.

    Every column of the terms is a column of `down` times a coefficient. This counts the coefficients 1 and -1. Columns
    that are constant, such as zero, are left out. A column that `down` holds m times counts as often as the terms hold
    it, and m times at most.
    """
    down = down.to(terms.dtype)
    down = down[:, (down != down[:1]).any(0)]
    known, times = torch.unique(_fingerprints(down), return_counts=True)
    stored, found = torch.unique(_fingerprints(terms), return_counts=True)
    place = torch.searchsorted(stored, known).clamp(max=max(len(stored) - 1, 0))
    if not len(stored):
        return 0, down.shape[1]
    equal = stored[place] == known
    return int(torch.minimum(times, found[place])[equal].sum()), down.shape[1]


def _fingerprints(columns: Tensor) -> Tensor:
    """One number for each column [H, K]. Columns with equal bits, up to the sign of the column, have equal numbers."""
    first = columns[columns.ne(0).int().argmax(0), torch.arange(columns.shape[1])]
    bits = (columns * torch.where(first < 0, -1, 1) + 0.0).double().contiguous().view(torch.int64)
    factors = torch.randint(1, 1 << 62, (len(columns), 1), generator=torch.Generator().manual_seed(0)) | 1
    return (bits * factors).sum(0)
