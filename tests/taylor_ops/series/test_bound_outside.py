"""The a-priori bound of a layer far outside its captured ranges, and right of a kink."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops.config.conversion import Basis
from taylor_ops.conversion.terms import terms
from taylor_ops.modeling.taylor_mlp import basis_features
from taylor_ops.series import bound as bounds
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.bound import OutputWeights, layer_bound, unit_roundoff
from taylor_ops.series.expansion import fit, right_of_the_kink
from taylor_ops.series.layout import layout
from tests.support.bounded_layer import BASES, DTYPES, NAMES, TOKENS, Layer, inputs_inside, sound_layers


@given(layer=sound_layers, seed=st.integers(0, 1000), times=st.sampled_from([2.0, 10.0, 1000.0]))
@settings(deadline=None, max_examples=40)
def test_far_outside_the_captured_ranges_no_output_is_further_off_than_the_bound(
    layer: Layer, seed: int, times: float
) -> None:
    inside, u = inputs_inside(layer, seed)
    # In most tokens some neurons stay inside; in the first all leave it.
    leaves = torch.rand(inside.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    leaves[0] = True
    z = torch.where(leaves, layer.expansion.center + (inside - layer.expansion.center) * times, inside)
    bound = layer.bound(factor=u * times, z=z)
    assert bool((layer.apart(z, u * times) <= bound.total).all())


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("times", [10.0, 1000.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_outside_only_rounding_grows_and_no_more_than_the_bound_says(
    dtype: torch.dtype, times: float, side: float
) -> None:
    place = torch.tensor([-0.5 * side] * 9).double(), torch.tensor([1.0] * 9).double()
    expansion = fit(ACTIVATIONS["silu"], *place, "chebyshev")
    layer = Layer("silu", torch.ones(7, 9), expansion, torch.full((9,), 20), torch.ones(9).double(), dtype)
    exact = replace(layer, dtype=torch.float64)
    z = expansion.center + side * torch.full((1, 9), times).double()
    assert float(layer.bound(z=z).truncation) == float(layer.bound().truncation)
    assert float(exact.apart(z, torch.ones(1, 9).double())) <= float(layer.bound().truncation)
    # What the carrying term adds by rounding is at most two roundings of what it carries.
    end = expansion.center + side
    carried = exact.released(z, torch.ones(1, 9).double()) - exact.released(end[None], torch.ones(1, 9).double())
    grown = float(layer.bound(z=z).certain_rounding - layer.bound().certain_rounding)
    rounded = unit_roundoff(dtype) * float(torch.linalg.vector_norm(carried))
    assert 1.9 * rounded < grown < (2.4 if side > 0 else 2.4 * 0.279 / 0.19) * rounded


@pytest.mark.parametrize("name", NAMES)
def test_no_smooth_activation_is_steeper_or_lower_than_the_bound_takes_it_to_be(name: str) -> None:
    z = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    assert 1.09 < float(ACTIVATIONS[name].taylor(z, 1)[1].abs().max()) < bounds._STEEPEST
    assert -bounds._LOWEST < float(ACTIVATIONS[name].value(z).min()) < -0.1
    assert bool((ACTIVATIONS[name].value(z) <= z.clamp_min(0)).all())


def test_a_carrier_that_overflows_makes_the_bound_infinite() -> None:
    place = torch.tensor([-14.0]).double(), torch.tensor([0.5]).double()
    expansion = fit(ACTIVATIONS["silu"], *place, "chebyshev")
    orders, factor, weights = torch.tensor([4]), torch.ones(1).double(), OutputWeights.of(torch.ones(3, 1))
    infinite = [bool(layer_bound(expansion, orders, weights, factor, 1.0, dtype).total.isinf()) for dtype in DTYPES]
    assert infinite == [False, True, False]


# Kinked


@given(
    seed=st.integers(0, 1000),
    name=st.sampled_from(["relu", "relu2"]),
    basis=st.sampled_from(BASES),
    dtype=st.sampled_from(DTYPES),
    times=st.sampled_from([1.0, 1.004, 10.0, 1000.0]),
)
@settings(deadline=None, max_examples=30)
def test_a_kinked_activation_is_only_rounded_however_far_right_of_its_interval(
    seed: int, name: str, basis: Basis, dtype: torch.dtype, times: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, neurons = 1 + seed % 7, 200
    weight = torch.randn(rows, neurons, generator=generator).double()
    place = right_of_the_kink(torch.rand(neurons, generator=generator).double() * 20)
    expansion = fit(ACTIVATIONS[name], *place, basis)
    orders = torch.full((neurons,), ACTIVATIONS[name].degree or 0)
    z = 2 * expansion.radius * times * (torch.rand(TOKENS, neurons, generator=generator).double() * 1.5 - 0.5)
    u = torch.randn(TOKENS, neurons, generator=generator).double()
    weights = OutputWeights.of(weight)
    bound = layer_bound(expansion, orders, weights, u, 1.0, dtype, z, z)

    def output(of: torch.dtype) -> Tensor:
        stacked = layout(expansion, orders)
        right = z[:, stacked.permutation].clamp_min(0)
        features = basis_features(
            basis, stacked.widths, (right - stacked.center) / stacked.radius, (u * (z > 0))[:, stacked.permutation]
        )
        result: Tensor = torch.cat(features, dim=-1) @ terms(weight, stacked, of).whole().double().T
        return result

    apart = torch.linalg.vector_norm(output(dtype) - output(torch.float64), dim=-1)
    exact = (u * ACTIVATIONS[name].value(z)) @ weight.T
    torch.testing.assert_close(output(torch.float64), exact, rtol=1e-9, atol=1e-9 * times**2)
    assert bool((apart <= bound.rounding).all())
    assert bool((bound.rounding <= 500 * apart.amax()).all())
    assert bool((bound.truncation <= 1e-9 * (1 + exact.abs().amax())).all())
