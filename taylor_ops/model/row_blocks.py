"""Tensors that are made a few rows at a time when they are written or compared, and are never whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ByRows:
    """A tensor whose rows are made a few at a time.

    Attributes:
        shape: Shape of the tensor.
        dtype: Data type of the tensor.
        blocks: Makes all rows anew, in order, in blocks [rows, ...]. A block is valid while the next one is made, so
            that it can be written meanwhile, and no longer.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    blocks: Callable[[], Iterator[Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of all its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def whole(self) -> Tensor:
        """All rows at once."""
        result = torch.empty(self.shape, dtype=self.dtype)
        start = 0
        for block in self.blocks():
            result[start : start + len(block)] = block
            start += len(block)
        return result

    def equals(self, other: Tensor) -> bool:
        """Whether `other` has the same dtype, shape and values."""
        if (other.dtype, tuple(other.shape)) != (self.dtype, self.shape):
            return False
        start = 0
        for block in self.blocks():
            if not torch.equal(other[start : start + len(block)], block):
                return False
            start += len(block)
        return True
