"""Fit the expansions of one MLP to the share of the bound of the layer that each neuron may take."""

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

# The largest error of the activation of any neuron, however little the neuron matters on the calibration text.
_LARGEST_ERROR = 0.1


@dataclass(frozen=True)
class FittedLayer:
    """The expansions of one MLP with F neurons, and the inputs of its bound. Tensors are [F] float64.

    Attributes:
        expansion: The expansions of the neurons. Each interval is cut where phi equals its asymptotes within the
            allowed error, so a range may leave its interval.
        allowed: Largest truncation error of each series with which the layer keeps the configured tolerance, 0 if no
            truncation error does, and infinity for a neuron without output weights.
        low: Least pre-activation of the widened range.
        high: Largest pre-activation of the widened range.
        factor: Largest gate factor of the widened range.
        weights: Measures of the output weights.
        output_norm: Typical norm of the output.
        dtype: Data type of the terms.
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
        """Smallest orders [F] with an error of at most `tightening` times the allowed one, else `max_order + 1`.

        The orders are computed once and kept, because a ladder asks for the same ones many times. Callers must not
        change them in place.
        """
        limits = tightening, max_order
        if limits not in self._orders:
            self._orders[limits] = orders_for(self.expansion.errors, self.allowed * tightening, max_order)
        return self._orders[limits]

    @cached_property
    def _orders(self) -> dict[tuple[float, int], Tensor]:
        return {}

    def error_at(self, orders: Tensor) -> Tensor:
        """Bound [F] on the error of phi on the interval of each neuron if its series ends at its order."""
        return self.expansion.errors.gather(0, orders[None])[0]

    def longest_first(self, orders: Tensor) -> Tensor:
        """Neurons [F] by falling order. Neurons of equal order are sorted by how much they add to the truncation.

        The result is kept, like the orders, because a ladder asks for it for every share of unprotected neurons.
        """
        order_bytes = orders.numpy().tobytes()
        if order_bytes not in self._longest_first:
            added = self.weights.norms * self.factor.abs() * self.error_at(orders)
            by_added = torch.argsort(added, descending=True, stable=True)
            by_order = torch.argsort(orders[by_added], descending=True, stable=True)
            self._longest_first[order_bytes] = by_added[by_order]
        return self._longest_first[order_bytes]

    @cached_property
    def _longest_first(self) -> dict[bytes, Tensor]:
        return {}

    def bound(self, orders: Tensor) -> Bound:
        """The a-priori bound of the layer under `orders` [F], for every input in the widened ranges.

        Unprotected neurons, whose order is negative, are as exact as the original.
        """
        protected = orders >= 0
        return layer_bound(
            self.expansion.of(protected),
            orders[protected],
            self.weights.of_columns(protected),
            self.factor[protected],
            self.output_norm,
            self.dtype,
            self.low[protected],
            self.high[protected],
        )

    def keeps(self, tolerance: float, orders: Tensor) -> bool:
        """Whether the bound under `orders` [F] is within `tolerance`, with rounding if the dtype counts it."""
        bound = self.bound(orders)
        counted = bound.total if counts_rounding(self.dtype) else bound.truncation
        return float(counted) <= tolerance * (1 + 1e-9)

    def loses_digits(self, orders: Tensor) -> Tensor:
        """Which neurons [F] lose more than the allowed error by cancellation between powers when terms are rounded."""
        if self.expansion.basis == "chebyshev":
            return torch.zeros_like(orders, dtype=torch.bool)
        own = coefficients(self.expansion, orders).abs().sum(0)
        needed = self.expansion.chebyshev.abs().sum(0)
        return (own - needed) * torch.finfo(self.dtype).eps > self.allowed


def counts_rounding(dtype: torch.dtype) -> bool:
    """Whether `conversion.tolerance` also bounds the rounding of the terms, as in float32.

    In 16 bits no order makes the rounding small enough. It is then reported separately and judged by the noise floor.
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

    unrounded = shares(0.0)
    if activation.degree is not None:
        expansion = fit(activation, *right_of_the_kink(captured.high), conversion.basis)
    else:
        place = intervals(captured.low, captured.high, conversion.range_margin, activation.saturation(unrounded))
        expansion = fit(activation, *place, conversion.basis)
    layer = FittedLayer(expansion, unrounded, low, high, factor, weights, captured.output_norm, dtype)
    rounding = 0.0
    if counts_rounding(dtype):
        rounding = float(layer.bound(layer.orders(0.5, conversion.max_order).clamp_max(conversion.max_order)).rounding)
    return replace(layer, allowed=torch.where(weights.norms > 0, shares(rounding), torch.inf))
