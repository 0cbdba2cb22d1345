"""The a-priori bound of a layer: never below what really rounded terms do, and not far above what they can do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taylor_ops.config.conversion import Basis
from taylor_ops.conversion.terms import terms
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.bound import OutputWeights, _largest, equal_shares, layer_bound, unit_roundoff
from taylor_ops.series.expansion import evaluate, fit
from taylor_ops.series.layout import layout
from tests.support.bounded_layer import (
    BASES,
    DTYPES,
    TOKENS,
    Layer,
    inputs_inside,
    layers,
    one_aligned_input,
    one_constant,
    random_layer,
    sound_layers,
)

# Inside


@given(layer=layers, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_inside_the_captured_ranges_no_output_is_further_off_than_the_bound(layer: Layer, seed: int) -> None:
    z, u = inputs_inside(layer, seed)
    total = layer.bound().total
    assert bool(total.isinf()) == layer.overflows
    assert layer.overflows or bool((layer.apart(z, u) <= total).all())


@given(layer=sound_layers)
@settings(deadline=None, max_examples=20)
def test_an_input_that_aligns_all_errors_stays_within_what_is_certain(layer: Layer) -> None:
    bound = layer.bound()
    z, u = one_aligned_input(layer, exact_terms=False)
    assert float(layer.apart(z, u)) <= float(bound.truncation + bound.certain_rounding)
    z, u = one_aligned_input(layer, exact_terms=True)
    error = layer.released(z, u, exact_terms=True) - layer.original(z, u)
    assert float(torch.linalg.vector_norm(error)) <= float(bound.truncation) * (1 + 1e-9) + 1e-12


@given(layer=sound_layers, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_the_bound_at_the_factors_of_each_token_holds_for_it_and_is_no_larger(layer: Layer, seed: int) -> None:
    z, u = inputs_inside(layer, seed)
    each = layer.bound(factor=u)
    assert each.total.shape == (TOKENS,)
    assert bool((layer.apart(z, u) <= each.total).all())
    assert bool((each.total <= layer.bound().total * (1 + 1e-12)).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_terms_that_float16_holds_as_subnormals_stay_within_the_bound(dtype: torch.dtype) -> None:
    layer = random_layer(11, dtype=dtype)
    layer = replace(layer, weight=layer.weight / layer.weight.abs().max() * 2e-6)
    z, u = inputs_inside(layer, 0)
    assert bool((layer.apart(z, u) <= layer.bound().total).all())


@given(order=st.integers(1, 9), reach=st.floats(1, 4), basis=st.sampled_from(BASES))
def test_the_largest_value_of_each_basis_function_is_known_on_and_beyond_its_interval(
    order: int, reach: float, basis: Basis
) -> None:
    one = torch.eye(10, dtype=torch.float64)[order][:, None]
    points = torch.linspace(-reach, reach, 401, dtype=torch.float64)[:, None]
    found = float(evaluate(basis, one, points).abs().max())
    most = float(_largest(basis, one, points[-1]))
    assert found <= most * (1 + 1e-12)
    assert most <= found + 2


# Not vacuous: half of the bound is exceeded in the case it is made for


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("order", [3, 6, 12])
def test_parallel_columns_whose_errors_align_exceed_half_the_truncation(basis: Basis, order: int) -> None:
    place = torch.tensor([0.5] * 9).double(), torch.tensor([1.5] * 9).double()
    expansion = fit(ACTIVATIONS["silu"], *place, basis)
    orders = torch.full((9,), order)
    layer = Layer("silu", torch.ones(7, 9), expansion, orders, torch.ones(9).double(), torch.float64)
    truncation = float(layer.bound().truncation)
    apart = float(layer.apart(*one_aligned_input(layer, exact_terms=True)))
    assert truncation / 2 < apart <= truncation


def test_orthogonal_columns_exceed_half_the_truncation_that_their_alignment_allows() -> None:
    place = torch.tensor([0.5] * 64).double(), torch.tensor([1.5] * 64).double()
    expansion = fit(ACTIVATIONS["silu"], *place, "chebyshev")
    orders = torch.full((64,), 6)
    layer = Layer("silu", torch.eye(64), expansion, orders, torch.ones(64).double(), torch.float64)
    truncation = float(layer.bound().truncation)
    assert truncation == pytest.approx(8 * float(expansion.errors[6, 0]))
    assert truncation / 2 < float(layer.apart(*one_aligned_input(layer, exact_terms=True))) <= truncation


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_between_two_numbers_of_the_dtype_exceed_half_the_certain_rounding(dtype: torch.dtype) -> None:
    weight = torch.full((5, 1), 1 + 0.99 * unit_roundoff(dtype), dtype=torch.float64)
    orders, factor = torch.ones(1, dtype=torch.int64), torch.ones(1).double()
    bound = layer_bound(one_constant(1), orders, OutputWeights.of(weight), factor, 1.0, dtype)
    apart = float(torch.linalg.vector_norm(weight.to(dtype).double() - weight))
    assert float(bound.certain_rounding) / 2 < apart <= float(bound.certain_rounding)
    assert float(bound.truncation) == 0


def test_subnormal_weights_exceed_half_the_certain_rounding_of_their_only_term() -> None:
    spacing = torch.finfo(torch.float16).smallest_normal * torch.finfo(torch.float16).eps
    weight = torch.full((5, 1), 0.499 * spacing, dtype=torch.float64)
    orders, factor = torch.ones(1, dtype=torch.int64), torch.ones(1).double()
    bound = layer_bound(one_constant(1), orders, OutputWeights.of(weight), factor, 1.0, torch.float16)
    apart = float(torch.linalg.vector_norm(weight.to(torch.float16).double() - weight))
    # Orders 0 and 1 are both stored; the term of order 1 is zero here and could have been as wrong.
    assert float(bound.certain_rounding) / 2 < 2 * apart <= float(bound.certain_rounding)


@given(seed=st.integers(0, 1000), dtype=st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=10)
def test_random_weights_come_within_a_small_factor_of_the_likely_rounding(seed: int, dtype: torch.dtype) -> None:
    neurons = 400
    weight = torch.randn(16, neurons, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orders, factor = torch.ones(neurons, dtype=torch.int64), torch.ones(neurons).double()
    expansion = one_constant(neurons)
    bound = layer_bound(expansion, orders, OutputWeights.of(weight), factor, 1.0, dtype)
    stored = terms(weight, layout(expansion, orders), dtype).whole().double()[:, :neurons]
    apart = float(torch.linalg.vector_norm((stored - weight).sum(1)))
    # The bound is 6.5 times the root of the sum of squares, and rounding errors have about 0.4 of their largest size.
    assert float(bound.rounding) / 40 < apart < float(bound.rounding)


# Which of two bounds


def test_the_smaller_of_certain_and_likely_rounding_counts() -> None:
    for neurons, likely_is_smaller in ((1, False), (30, False), (60, True), (1000, True)):
        weights = OutputWeights(torch.ones(neurons).double(), torch.ones(neurons).double(), 4, 1.0)
        orders, factor = torch.ones(neurons, dtype=torch.int64), torch.ones(neurons).double()
        bound = layer_bound(one_constant(neurons), orders, weights, factor, 1.0, torch.float32)
        one = 2.0**-24 + 2 * 2 * 2.0**-24 * torch.finfo(torch.float32).smallest_normal
        assert float(bound.certain_rounding) == pytest.approx(one * neurons)
        likely = one * math.sqrt(neurons * 2 * math.log(2e9))
        assert float(bound.rounding) == pytest.approx(min(likely, one * neurons))
        assert (float(bound.rounding) < float(bound.certain_rounding)) == likely_is_smaller


@given(rows=st.integers(1, 40), neurons=st.integers(1, 40), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_alignment_is_the_spectral_norm_of_the_scaled_columns(rows: int, neurons: int, seed: int) -> None:
    weight = torch.randn(rows, neurons, generator=torch.Generator().manual_seed(seed)).double()
    weight = weight * 10 ** torch.linspace(-6, 6, neurons).double()
    found = OutputWeights.of(weight)
    assert found.rows == rows
    torch.testing.assert_close(found.norms, torch.linalg.vector_norm(weight, dim=0))
    assert found.alignment == pytest.approx(float(torch.linalg.matrix_norm(weight / found.norms, ord=2)))
    assert 1 - 1e-12 <= found.alignment <= math.sqrt(neurons) * (1 + 1e-12)


def test_an_unused_neuron_and_a_layer_of_zeros_have_finite_bounds() -> None:
    layer = random_layer(3)
    unused = replace(layer, weight=layer.weight.clone())
    unused.weight[:, 0] = 0
    assert bool(unused.bound().total.isfinite())
    nothing = replace(layer, weight=torch.zeros_like(layer.weight))
    assert float(nothing.bound().truncation) == 0


@given(layer=sound_layers, norm=st.floats(0.01, 100))
@settings(deadline=None, max_examples=10)
def test_a_bound_is_a_fraction_of_the_output_norm(layer: Layer, norm: float) -> None:
    weights = OutputWeights.of(layer.weight)
    relative = layer_bound(layer.expansion, layer.orders, weights, layer.factor, norm, layer.dtype)
    assert float(relative.total) * norm == pytest.approx(float(layer.bound().total))
    assert float(relative.total) == float(relative.truncation + relative.rounding)


def test_unit_roundoffs() -> None:
    assert [unit_roundoff(dtype) for dtype in DTYPES] == [2.0**-24, 2.0**-11, 2.0**-8]


# Shares


@given(layer=layers, tolerance=st.floats(1e-4, 1e-1), norm=st.floats(0.1, 10), spent=st.floats(0, 0.9))
@settings(deadline=None, max_examples=40)
def test_equal_shares_use_up_the_tolerance_and_no_more(
    layer: Layer, tolerance: float, norm: float, spent: float
) -> None:
    weights = OutputWeights.of(layer.weight)
    shares = equal_shares(tolerance, spent * tolerance, weights, layer.factor, norm)
    adds = weights.norms * layer.factor * shares
    assert float(adds.max() / adds.min()) == pytest.approx(1)
    used = min(float(adds.sum()), weights.alignment * float(torch.linalg.vector_norm(adds))) / norm
    assert used == pytest.approx((1 - spent) * tolerance)


@given(layer=sound_layers, tolerance=st.floats(1e-4, 1e-1))
@settings(deadline=None, max_examples=20)
def test_orders_chosen_by_equal_shares_keep_the_tolerance_of_the_layer(layer: Layer, tolerance: float) -> None:
    norm = float((OutputWeights.of(layer.weight).norms * layer.factor).sum())
    weights = OutputWeights.of(layer.weight)
    rounding = float(layer.bound().rounding) / norm
    shares = equal_shares(tolerance, rounding, weights, layer.factor, norm)
    enough = layer.expansion.errors[:129] <= shares
    if not bool(enough[1:].any(0).all()):
        return
    orders = enough.int().argmax(0).clamp_min(1)
    bound = layer_bound(layer.expansion, orders, weights, layer.factor, norm, layer.dtype)
    assert float(bound.truncation) + rounding <= tolerance * (1 + 1e-9)


def test_neurons_without_influence_may_be_wrong_and_no_neuron_may_where_rounding_leaves_nothing() -> None:
    norms = torch.tensor([1.0, 0.0, 2.0, 1.0]).double()
    weights = OutputWeights(norms, norms, 8, 1.5)
    factor = torch.tensor([1.0, 1.0, 1.0, 0.0]).double()
    shares = equal_shares(0.1, 0.04, weights, factor, 10.0)
    assert shares.tolist() == pytest.approx([0.6 / 2, math.inf, 0.6 / 4, math.inf])
    assert equal_shares(0.1, 0.2, weights, factor, 10.0).tolist() == [0, math.inf, 0, math.inf]
    assert equal_shares(0.1, 0.0, weights, factor * 0, 10.0).tolist() == [math.inf] * 4
