"""The slowdown of a bundle as a straight line over its columns, from one timed plan or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from taylor_ops.model.shape import ModelShape
from taylor_ops.modeling.taylor_mlp import READS_IN_PIECES

# Time to read a byte of stacked terms over the mean time per byte of the original. The CPU figures are of machines with
# two cores: in pieces that all cores share, and as one product. A GPU reads all bytes equally fast.
_READ_IN_PIECES, _READ_AS_ONE, _READ_BY_A_GPU = 0.52, 0.55, 1.0

# If a bundle is measured to cost less than this, the machine was too noisy to time it.
LEAST_COST = 0.01


@dataclass(frozen=True)
class Cost:
    """The slowdown of any plan: 1 + fixed + per_column * extra, for `extra` columns beyond one a neuron.

    Attributes:
        per_column: What each extra column adds to the slowdown.
        fixed: What a bundle costs whatever its columns, such as launching the kernels of a layer, over a decode step of
            the original.
    """

    per_column: float
    fixed: float = 0.0

    def slowdown(self, extra: float) -> float:
        """The slowdown with `extra` columns beyond one a neuron."""
        return 1 + self.fixed + self.per_column * extra

    def extra(self, slowdown: float) -> float:
        """The extra columns that give a slowdown. Below 0 if a plan without extra columns is slower already."""
        return (slowdown - 1 - self.fixed) / self.per_column


class TimedPlan(NamedTuple):
    """A plan that was timed.

    Attributes:
        extra: Its columns beyond one a neuron.
        slowdown: Its measured slowdown.
        low, high: The interval in which its slowdown surely lies.
    """

    extra: float
    slowdown: float
    low: float
    high: float


# No extra column and no fixed cost. It stands for the second plan if only one was timed.
ORIGINAL = TimedPlan(0.0, 1.0, 1.0, 1.0)


def costs_of(cheap: TimedPlan, dear: TimedPlan) -> tuple[Cost, tuple[Cost, Cost]]:
    """The line through both plans, and the flattest and the steepest line through their intervals.

    The slowdown of any plan lies between the last two.
    """
    flattest = _line((cheap.extra, cheap.high), (dear.extra, dear.low))
    steepest = _line((cheap.extra, cheap.low), (dear.extra, dear.high))
    return _line((cheap.extra, cheap.slowdown), (dear.extra, dear.slowdown)), (flattest, steepest)


def _line(cheap: tuple[float, float], dear: tuple[float, float]) -> Cost:
    """The line through two slowdowns, or the nearest one with a positive cost per column and no negative fixed cost."""
    (few, low), (many, high) = cheap, dear
    total = max(LEAST_COST, high - 1)
    per_column = min(max((high - low) / (many - few), LEAST_COST / many), total / many)
    return Cost(per_column, max(0.0, total - per_column * many))


def read_share(dtype: torch.dtype, device: torch.device) -> float:
    """Time to read a byte of stacked terms over the mean time per byte of the original.

    It gives the first guess of a calibration, and the estimate of a plan that cannot be timed. Reported slowdowns are
    measured.
    """
    if device.type != "cpu":
        return _READ_BY_A_GPU
    in_pieces = READS_IN_PIECES and dtype == torch.float32 and torch.get_num_threads() > 1
    return _READ_IN_PIECES if in_pieces else _READ_AS_ONE


def cost_of_a_column(source: ModelShape, dtype: torch.dtype, device: torch.device) -> float:
    """What each column beyond one a neuron adds to the slowdown, judged by its bytes alone."""
    return read_share(dtype, device) * bytes_of_a_column(source, dtype)


def bytes_of_a_column(source: ModelShape, dtype: torch.dtype) -> float:
    """The bytes of one column over the bytes of the original: what it adds if all bytes are read equally fast."""
    return dtype.itemsize * int(source.config.hidden_size) / source.bytes(dtype)
