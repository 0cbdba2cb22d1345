"""The layout of one layer: which column of its stacked terms belongs to which neuron and order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from taylor_ops.series.expansion import Expansion, coefficients

CLEAR = -1
"""The order that marks an unprotected neuron, which keeps its output weights."""


@dataclass(frozen=True)
class Layout:
    """How the terms of one layer with F neurons, P of them protected, are stacked in K columns.

    Neurons are sorted by falling order. Unprotected neurons, of order `CLEAR`, come last. Each of them has one column,
    its output weights, after all terms.

    Attributes:
        permutation: [F], the original neuron at each place.
        widths: How many neurons have a term of order n, for each n. P neurons have order 0.
        neuron: [K], the original neuron of each column.
        coefficient: [K] float64, the coefficient of each column, 1 for an unprotected neuron.
        center: [P] float64, centre of the interval of each protected neuron.
        radius: [P] float64, radius of each interval.
        carrier: [2, P] float64. Row n has the factor that turns the term of order n, 0 or 1, back into the output
            weights. One of the two rows carries each neuron. The other row is 0 there.
        orders: [F], order of each original neuron.
    """

    permutation: Tensor
    widths: list[int]
    neuron: Tensor
    coefficient: Tensor
    center: Tensor
    radius: Tensor
    carrier: Tensor
    orders: Tensor

    @property
    def clear(self) -> int:
        """How many neurons keep their output weights."""
        return len(self.permutation) - self.widths[0]


def columns_of(orders: Tensor) -> int:
    """Columns of a layer whose neurons have `orders` [F]: the terms, and one for each unprotected neuron."""
    return int((orders + 1).sum()) + int((orders == CLEAR).sum())


def layout(expansion: Expansion, orders: Tensor) -> Layout:
    """Stack the terms of orders 0 .. orders[j] of every neuron j ([F] int64, at least 1 or `CLEAR`) order by order."""
    permutation = torch.argsort(orders, descending=True, stable=True)
    widths = [int((orders >= n).sum()) for n in range(int(orders.max()) + 1)]
    protected, unprotected = permutation[: widths[0]], permutation[widths[0] :]
    series, bare = coefficients(expansion, orders)[:, protected], torch.ones(len(unprotected), dtype=torch.float64)
    # Terms of order 0 and 1 are multiples of the output weights. Outside the interval the larger one carries phi.
    leading = series[:2]
    first = leading[0].abs() >= leading[1].abs()
    chosen = torch.stack([first, ~first])
    carrier = torch.where(chosen, 1 / torch.where(chosen, leading, 1.0), 0.0)
    return Layout(
        permutation=permutation,
        widths=widths,
        neuron=torch.cat([*(permutation[:width] for width in widths), unprotected]),
        coefficient=torch.cat([*(series[n, :width] for n, width in enumerate(widths)), bare]),
        center=expansion.center[protected],
        radius=expansion.radius[protected],
        carrier=carrier,
        orders=orders,
    )
