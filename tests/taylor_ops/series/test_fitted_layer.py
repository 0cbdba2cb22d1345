"""Fitting a layer: within the widened ranges, cut or not, its output is wrong by no more than the tolerance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.machine.devices import DTYPES
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.bound import OutputWeights
from taylor_ops.series.fitted_layer import FittedLayer, counts_rounding, fit_layer
from taylor_ops.series.ranges import LayerRange, widened
from tests.support.bounded_layer import Layer

TOKENS = 96


def captured(seed: int, widest: float = 1.6) -> tuple[LayerRange, Tensor]:
    """Ranges of a random layer, a few far beyond where phi has saturated, and its output weights [H, F]."""
    generator = torch.Generator().manual_seed(seed)
    rows, neurons = (int(torch.randint(2, 48, (1,), generator=generator)) for _ in range(2))
    weight = torch.randn(rows, neurons, generator=generator)
    middle = 3 * torch.randn(neurons, generator=generator).double()
    width = 10 ** (torch.rand(neurons, generator=generator).double() * (widest + 1) - 1)
    factor = torch.randn(neurons, generator=generator).double().exp()
    typical = float((weight.double().norm(dim=0) * factor).norm()) / 3
    weights = OutputWeights.of(weight)
    return LayerRange(middle - width / 2, middle + width / 2, factor, typical, weights), weight


def inputs(ranges: LayerRange, margin: float, seed: int) -> tuple[Tensor, Tensor]:
    """Pre-activations and factors [T, F] in the widened ranges, a third of the tokens at their ends."""
    low, high, factor = widened(ranges, margin)
    generator = torch.Generator().manual_seed(seed)
    shape = TOKENS, len(low)
    share, u = torch.rand(shape, generator=generator).double(), torch.rand(shape, generator=generator).double() * 2 - 1
    share[: TOKENS // 3] = share[: TOKENS // 3].round()
    u[TOKENS // 4 : TOKENS // 2] = u[TOKENS // 4 : TOKENS // 2].sign()
    return low + (high - low) * share, factor * u


def orders_of(layer: FittedLayer, highest: int = 128) -> Tensor:
    orders = layer.orders(1.0, highest)
    assert int(orders.max()) <= highest
    return orders


@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(["silu", "gelu", "gelu_new", "quick_gelu"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    tolerance=st.sampled_from([1e-1, 1e-2, 2e-3]),
    margin=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_within_the_widened_ranges_the_error_is_at_most_the_bound_and_the_bound_at_most_the_tolerance(
    seed: int, name: str, dtype: str, tolerance: float, margin: float
) -> None:
    ranges, weight = captured(seed)
    conversion = Conversion(dtype=dtype, tolerance=tolerance, range_margin=margin)
    fitted = fit_layer(ACTIVATIONS[name], ranges, conversion)
    orders = orders_of(fitted)
    bound = fitted.bound(orders)
    counted = bound.total if counts_rounding(DTYPES[dtype]) else bound.truncation
    assert float(counted) <= tolerance * (1 + 1e-12)
    rounded = weight.to(DTYPES[dtype]).float()
    layer = Layer(name, rounded, fitted.expansion, orders, fitted.factor, DTYPES[dtype])
    if not layer.overflows:
        error = layer.apart(*inputs(ranges, margin, seed)) / ranges.output_norm
        assert float(error.max()) <= float(bound.total)


@pytest.mark.parametrize("name", ["silu", "gelu_new"])
def test_a_range_far_beyond_saturation_is_cut_and_the_layer_keeps_its_tolerance(name: str) -> None:
    ranges, weight = captured(seed=5)
    wide = LayerRange(ranges.low - 200, ranges.high + 200, ranges.factor, ranges.output_norm, ranges.weights)
    fitted = fit_layer(ACTIVATIONS[name], wide, Conversion(tolerance=1e-2))
    assert float(fitted.expansion.radius.max()) < 40
    assert bool((fitted.low < fitted.expansion.center - fitted.expansion.radius).all())
    orders = orders_of(fitted)
    assert float(fitted.bound(orders).total) <= 1e-2
    layer = Layer(name, weight, fitted.expansion, orders, fitted.factor, torch.float32)
    error = layer.apart(*inputs(wide, 0.5, seed=5)) / wide.output_norm
    assert float(error.max()) <= float(fitted.bound(orders).total)


def test_a_tolerance_that_rounding_uses_up_leaves_nothing_to_the_series() -> None:
    ranges, _ = captured(seed=7)
    fitted = fit_layer(ACTIVATIONS["silu"], ranges, Conversion(tolerance=1e-7))
    assert bool((fitted.allowed == 0).all())
    assert bool((fitted.orders(1.0, 64) == 65).all())


def test_tightening_scales_what_each_series_may_be_wrong_by() -> None:
    ranges, _ = captured(seed=9)
    fitted = fit_layer(ACTIVATIONS["silu"], ranges, Conversion(tolerance=1e-1))
    for tightening in (1.0, 1e-2, 1e-4):
        orders = fitted.orders(tightening, 128)
        assert bool((fitted.error_at(orders) <= tightening * fitted.allowed).all())
        higher = orders > 1
        assert bool((fitted.error_at((orders - 1).clamp_min(1)) > tightening * fitted.allowed)[higher].all())


def test_a_layer_keeps_a_tolerance_up_to_its_bound_and_no_smaller_one() -> None:
    ranges, _ = captured(seed=11)
    for dtype in ("float32", "bfloat16"):
        fitted = fit_layer(ACTIVATIONS["silu"], ranges, Conversion(dtype=dtype, tolerance=1e-2))
        orders = orders_of(fitted)
        bound = fitted.bound(orders)
        counted = float(bound.total if dtype == "float32" else bound.truncation)
        assert fitted.keeps(counted, orders)
        assert not fitted.keeps(0.999 * counted, orders)
