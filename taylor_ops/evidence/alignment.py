"""Find which columns of the original's output weights a suspect has, in any order, sign and scale, whole or cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIKE = 0.7
_ROWS_COMPARED = 256
_COLUMNS_TRIED = 8


@dataclass(frozen=True)
class Aligned:
    """Columns of a suspect and the same columns of the original.

    Attributes:
        suspect: Columns [h, f] float32 of the suspect, with the scale and sign of the original.
        original: The same columns [h, f] float32 of the original.
        row: The first of the h rows in the original.
        neuron: The original neuron of each column, [f].
    """

    suspect: Tensor
    original: Tensor
    row: int
    neuron: Tensor


def align(suspect: Tensor, original: Tensor) -> Aligned | None:
    """Find columns [h, f'] of a suspect, in any order, sign and scale, among the columns [H, F] of the original.

    They are whole columns, or the same run of rows of each. Returns None if no column is found, or if the suspect has
    more rows than the original.
    """
    suspect, original = suspect.float(), original.float()
    if 0 in suspect.shape or len(suspect) > len(original):
        return None
    row = _first_row(suspect, original)
    if row is None:
        return None
    original = original[row : row + len(suspect)]
    neuron = _neurons(suspect, original)
    place = torch.nonzero(neuron >= 0).flatten()
    if not len(place):
        return None
    neuron = neuron[place]
    suspect, original = suspect[:, place], original[:, neuron]
    # Weights that were pruned away say nothing about the scale.
    unpruned = original * (suspect != 0)
    scale = (suspect * unpruned).sum(0) / unpruned.square().sum(0)
    return Aligned(suspect / scale, original, row, neuron)


def _first_row(suspect: Tensor, original: Tensor) -> int | None:
    """The row of the original [H, F] where the suspect [h, f] begins, found by trying a few columns at every row."""
    h, height = len(suspect), len(original)
    spread = torch.linspace(0, suspect.shape[1] - 1, min(_COLUMNS_TRIED, suspect.shape[1])).long()
    sample = _unit(suspect[:, spread])
    if h == height:
        best = (sample.T @ _unit(original)).abs().amax(1)[None]
    else:
        squares = torch.nn.functional.pad(original.double().square().cumsum(0), (0, 0, 1, 0))
        norms = (squares[h:] - squares[:-h]).sqrt().float().clamp_min(1e-30)
        # A product of Fourier transforms is the sum of products at every shift.
        transformed = torch.fft.rfft(original, 2 * height, dim=0)
        best = torch.stack(
            [
                (torch.fft.irfft(transformed * column.conj(), 2 * height, dim=0)[: height - h + 1].abs() / norms).amax(
                    1
                )
                for column in torch.fft.rfft(sample, 2 * height, dim=0).T[:, :, None]
            ],
            dim=1,
        )
    # Two columns that agree are enough: the others may be neurons that were set to zero, or added.
    found = best.topk(min(2, best.shape[1]), dim=1).values[:, -1].max(0)
    return int(found.indices) if float(found.values) > _ALIKE else None


def _neurons(suspect: Tensor, original: Tensor) -> Tensor:
    """For each column of the suspect [h, f], the most similar column of the original [h, F], or -1: [f] int64."""
    if suspect.shape == original.shape:
        alike = torch.nn.functional.cosine_similarity(suspect, original, dim=0).abs() > _ALIKE
        # If most columns are in their original places, nothing was permuted.
        if int(alike.sum()) > len(alike) // 2:
            return torch.where(alike, torch.arange(len(alike)), -1)
    every = max(1, len(suspect) // _ROWS_COMPARED)
    found = (_unit(suspect[::every]).T @ _unit(original[::every])).abs().max(dim=1)
    return torch.where(found.values > _ALIKE, found.indices, -1)


def _unit(columns: Tensor) -> Tensor:
    return torch.nn.functional.normalize(columns, dim=0)
