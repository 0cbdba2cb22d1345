"""What a bundle costs beside its original: slowdowns on a line over columns, from one plan that was timed or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from taylor_ops.model.shape import ModelShape
from taylor_ops.modeling.taylor_mlp import READS_IN_PIECES

# Time to read a byte of stacked terms over the mean time per byte of the original, on two CPU cores: in pieces, which
# all cores share, and as one product. A GPU reads every byte alike.
_READ_IN_PIECES, _READ_AS_ONE, _READ_BY_A_GPU = 0.38, 0.55, 1.0

# A bundle that is found to be no slower than this is one that the machine was too noisy to time.
LEAST_COST = 0.01


@dataclass(frozen=True)
class Cost:
    """The slowdown of any plan: 1 + fixed + per_column * extra. extra: columns more than one a neuron.

    fixed: what no column makes dearer, such as launching the kernels of a layer, over a decode step of the original.
    """

    per_column: float
    fixed: float = 0.0

    def slowdown(self, extra: float) -> float:
        """The slowdown with so many extra columns."""
        return 1 + self.fixed + self.per_column * extra

    def extra(self, slowdown: float) -> float:
        """The extra columns that give a slowdown; below 0 where none would be too many."""
        return (slowdown - 1 - self.fixed) / self.per_column


class TimedPlan(NamedTuple):
    """A plan that was timed: its extra columns, its slowdown, and the interval in which that surely is."""

    extra: float
    slowdown: float
    low: float
    high: float


# No extra column and nothing fixed: what stands for a second plan where one was timed.
ORIGINAL = TimedPlan(0.0, 1.0, 1.0, 1.0)


def costs_of(cheap: TimedPlan, dear: TimedPlan) -> tuple[Cost, tuple[Cost, Cost]]:
    """The line through both, and the flattest and the steepest through their intervals: any plan is between those."""
    flattest = _line((cheap.extra, cheap.high), (dear.extra, dear.low))
    steepest = _line((cheap.extra, cheap.low), (dear.extra, dear.high))
    return _line((cheap.extra, cheap.slowdown), (dear.extra, dear.slowdown)), (flattest, steepest)


def _line(cheap: tuple[float, float], dear: tuple[float, float]) -> Cost:
    """The line through two slowdowns or, where a column or all else would cost less than nothing, as near as can be."""
    (few, low), (many, high) = cheap, dear
    whole = max(LEAST_COST, high - 1)
    per_column = min(max((high - low) / (many - few), LEAST_COST / many), whole / many)
    return Cost(per_column, max(0.0, whole - per_column * many))


def read_share(dtype: torch.dtype, device: torch.device) -> float:
    """Time to read a byte of stacked terms over the mean time per byte of the original.

    It makes the first guess of a calibration, and what is expected where nothing can be timed; what is reported is
    measured.
    """
    if device.type != "cpu":
        return _READ_BY_A_GPU
    in_pieces = READS_IN_PIECES and dtype == torch.float32 and torch.get_num_threads() > 1
    return _READ_IN_PIECES if in_pieces else _READ_AS_ONE


def cost_of_a_column(source: ModelShape, dtype: torch.dtype, device: torch.device) -> float:
    """What one column more than one a neuron adds to the slowdown, going by its bytes alone."""
    return read_share(dtype, device) * bytes_of_a_column(source, dtype)


def bytes_of_a_column(source: ModelShape, dtype: torch.dtype) -> float:
    """The bytes of one column over those of the original: what it adds where all bytes are read equally fast."""
    return dtype.itemsize * int(source.config.hidden_size) / source.bytes(dtype)
