"""Fit the expansions of one MLP: intervals and errors by what each neuron may add to the bound of the layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.machine.devices import DTYPES
from taylor_ops.machine.threads import on_one_thread
from taylor_ops.series.activations import Activation
from taylor_ops.series.bound import Bound, OutputWeights, equal_shares, layer_bound
from taylor_ops.series.expansion import Expansion, coefficients, fit, intervals, orders_for, right_of_the_kink
from taylor_ops.series.ranges import LayerRange, widened

# However little a neuron matters on the calibration text, its activation is right to this.
_LARGEST_ERROR = 0.1


@dataclass(frozen=True)
class FittedLayer:
    """The expansions of one MLP with F neurons, and what its bound is made of. Tensors are [F] float64.

    allowed: largest truncation error of each series under which the layer keeps the tolerance that was asked for; 0
    where none does. low, high, factor: the widened ranges. An interval is cut where phi equals its asymptotes within
    what is allowed: a range may leave it.
    """

    expansion: Expansion
    allowed: Tensor
    low: Tensor
    high: Tensor
    factor: Tensor
    weights: OutputWeights
    output_norm: float
    dtype: torch.dtype

    def orders(self, tightening: float, max_order: int) -> Tensor:
        """Smallest orders [F] with an error of `tightening` times the allowed one; `max_order + 1` where none has.

        They are searched once and kept: a ladder asks for the same ones many times. Not to be changed in place.
        """
        asked = tightening, max_order
        if asked not in self._orders:
            self._orders[asked] = orders_for(self.expansion.errors, self.allowed * tightening, max_order)
        return self._orders[asked]

    @cached_property
    def _orders(self) -> dict[tuple[float, int], Tensor]:
        return {}

    def error_at(self, orders: Tensor) -> Tensor:
        """Bound [F] on the error of phi on the interval of each neuron when its series ends at its order."""
        return self.expansion.errors.gather(0, orders[None])[0]

    def longest_first(self, orders: Tensor) -> Tensor:
        """Neurons [F] by falling order; those of one order by how much they add to the truncation of the layer.

        Kept, like the orders: a ladder asks for it once for every share of neurons in clear.
        """
        asked = orders.numpy().tobytes()
        if asked not in self._longest_first:
            added = self.weights.norms * self.factor.abs() * self.error_at(orders)
            by_added = torch.argsort(added, descending=True, stable=True)
            by_order = torch.argsort(orders[by_added], descending=True, stable=True)
            self._longest_first[asked] = by_added[by_order]
        return self._longest_first[asked]

    @cached_property
    def _longest_first(self) -> dict[bytes, Tensor]:
        return {}

    def bound(self, orders: Tensor) -> Bound:
        """The a-priori bound of the layer under `orders` [F], for every input in the widened ranges.

        Neurons in clear, of negative order, are as exact as the original.
        """
        kept = orders >= 0
        return layer_bound(
            self.expansion.of(kept),
            orders[kept],
            self.weights.of_columns(kept),
            self.factor[kept],
            self.output_norm,
            self.dtype,
            self.low[kept],
            self.high[kept],
        )

    def keeps(self, tolerance: float, orders: Tensor) -> bool:
        """Whether what `tolerance` counts of the bound under `orders` [F] is within it."""
        bound = self.bound(orders)
        counted = bound.total if counts_rounding(self.dtype) else bound.truncation
        return float(counted) <= tolerance * (1 + 1e-9)

    def loses_digits(self, orders: Tensor) -> Tensor:
        """Which neurons [F] lose more than is allowed to cancellation between powers when terms are rounded."""
        if self.expansion.basis == "chebyshev":
            return torch.zeros_like(orders, dtype=torch.bool)
        own = coefficients(self.expansion, orders).abs().sum(0)
        needed = self.expansion.chebyshev.abs().sum(0)
        return (own - needed) * torch.finfo(self.dtype).eps > self.allowed


def counts_rounding(dtype: torch.dtype) -> bool:
    """Whether `conversion.tolerance` bounds rounding of the terms too, as in float32.

    In 16 bits no order can make it small enough: it is reported beside, and judged by the noise floor.
    """
    return dtype == torch.float32


@on_one_thread
def fit_layer(activation: Activation, captured: LayerRange, conversion: Conversion) -> FittedLayer:
    """Fit one MLP on its captured ranges, widened by the margin."""
    dtype, weights = DTYPES[conversion.dtype], captured.weights
    low, high, factor = widened(captured, conversion.range_margin)

    def shares(rounding: float) -> Tensor:
        equal = equal_shares(conversion.tolerance, rounding, weights, factor, captured.output_norm)
        return equal.clamp_max(_LARGEST_ERROR)

    whole = shares(0.0)
    if activation.degree is not None:
        expansion = fit(activation, *right_of_the_kink(captured.high), conversion.basis)
    else:
        place = intervals(captured.low, captured.high, conversion.range_margin, activation.saturation(whole))
        expansion = fit(activation, *place, conversion.basis)
    layer = FittedLayer(expansion, whole, low, high, factor, weights, captured.output_norm, dtype)
    rounding = 0.0
    if counts_rounding(dtype):
        rounding = float(layer.bound(layer.orders(0.5, conversion.max_order).clamp_max(conversion.max_order)).rounding)
    return replace(layer, allowed=shares(rounding))
