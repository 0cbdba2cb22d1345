"""The a-priori bound of a layer: never below what really rounded terms do, and not far above what they can do.

Long because each part of the bound (truncation, rounding, carriers, shares) is tested from both sides on one layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops import bound as bounds
from taylor_ops.activations import ACTIVATIONS
from taylor_ops.bound import (
    Bound,
    OutputWeights,
    _largest,
    equal_shares,
    layer_bound,
    unit_roundoff,
)
from taylor_ops.config import Basis
from taylor_ops.expansion import (
    Expansion,
    coefficients,
    errors,
    evaluate,
    fit,
    intervals,
    orders_for,
    right_of_the_kink,
)
from taylor_ops.modeling.taylor_mlp import basis_features
from taylor_ops.plan import layout, terms

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("silu", "gelu", "gelu_new", "quick_gelu")
BASES: tuple[Basis, ...] = ("chebyshev", "taylor")
TOKENS = 64


@dataclass(frozen=True)
class Layer:
    """A layer with its output weights [H, F], its expansion and orders [F], and the largest |u| [F]."""

    name: str
    weight: Tensor
    expansion: Expansion
    orders: Tensor
    factor: Tensor
    dtype: torch.dtype

    def bound(self, factor: Tensor | None = None, z: Tensor | None = None) -> Bound:
        given_factor = self.factor if factor is None else factor
        weights = OutputWeights.of(self.weight)
        return layer_bound(self.expansion, self.orders, weights, given_factor, 1.0, self.dtype, z, z)

    @property
    def overflows(self) -> bool:
        """Whether a term or a carrier is too large for the dtype."""
        stacked = layout(self.expansion, self.orders)
        stored = terms(self.weight, stacked, self.dtype).whole(), stacked.carrier.to(self.dtype)
        return not all(bool(part.isfinite().all()) for part in stored)

    def original(self, z: Tensor, u: Tensor) -> Tensor:
        """The output [T, H] for pre-activations z and factors u [T, F]."""
        return (u * ACTIVATIONS[self.name].value(z)) @ self.weight.double().T

    def released(self, z: Tensor, u: Tensor, exact_terms: bool = False) -> Tensor:
        """The output [T, H] of the bundle in float64 arithmetic, from its terms and carriers as stored."""
        stacked = layout(self.expansion, self.orders)
        z, u = z[:, stacked.permutation], u[:, stacked.permutation]
        inside = z.clamp(stacked.center - stacked.radius, stacked.center + stacked.radius)
        t = (inside - stacked.center) / stacked.radius
        features = basis_features(self.expansion.basis, stacked.widths, t, u)
        carrier, value = stacked.carrier.to(self.dtype).double(), ACTIVATIONS[self.name].value
        outside = value(z) - value(inside)
        for order in range(2):
            features[order] = features[order] + u * outside * carrier[order]
        theta = terms(self.weight, stacked, torch.float64 if exact_terms else self.dtype).whole().double()
        output: Tensor = torch.cat(features, dim=-1) @ theta.T
        return output

    def apart(self, z: Tensor, u: Tensor) -> Tensor:
        """The L2 norm [T] of the error, less what float64 may do to it."""
        size = coefficients(self.expansion, self.orders).abs().sum(0) + z.abs()
        noise: Tensor = 1e-14 * (u.abs() * size) @ torch.linalg.vector_norm(self.weight.double(), dim=0)
        error: Tensor = torch.linalg.vector_norm(self.released(z, u) - self.original(z, u), dim=-1) - noise
        return error


def random_layer(
    seed: int, name: str = "silu", basis: Basis = "chebyshev", dtype: torch.dtype = torch.float32, heavy: bool = False
) -> Layer:
    """A layer of random size, scale, ranges and tolerance; `heavy` makes a few weights and factors far larger."""
    generator = torch.Generator().manual_seed(seed)
    rows, neurons = (int(torch.randint(1, 80, (1,), generator=generator)) for _ in range(2))
    weight = torch.randn(rows, neurons, generator=generator) * 10.0 ** -(seed % 5)
    factor = torch.rand(neurons, generator=generator).double() * 3
    if heavy:
        weight = weight * torch.randn(rows, neurons, generator=generator).mul(1.5).exp()
        factor = factor * torch.randn(neurons, generator=generator).double().mul(1.5).exp()
    width = 10 ** (torch.rand(neurons, generator=generator).double() * 3 - 2)
    middle = torch.randn(neurons, generator=generator).double() * 3
    place = intervals(middle - width / 2, middle + width / 2, 0.25, torch.tensor(14.0).double())
    expansion = fit(ACTIVATIONS[name], *place, basis)
    orders = orders_for(errors(expansion), 10 ** -float(torch.rand(1, generator=generator) * 5), 64).clamp_max(64)
    # What a bundle is compared with is the original in the released dtype.
    return Layer(name, weight.to(dtype).float(), expansion, orders, factor, dtype)


layers = st.builds(
    random_layer,
    seed=st.integers(0, 10**6),
    name=st.sampled_from(NAMES),
    basis=st.sampled_from(BASES),
    dtype=st.sampled_from(DTYPES),
    heavy=st.booleans(),
)

sound_layers = layers.filter(lambda layer: not layer.overflows)


def inputs_inside(layer: Layer, seed: int) -> tuple[Tensor, Tensor]:
    """Pre-activations and factors [T, F] in the captured ranges; in half of the tokens all at an end or a corner."""
    generator = torch.Generator().manual_seed(seed)
    shape = TOKENS, len(layer.factor)
    t, u = (torch.rand(shape, generator=generator).double() * 2 - 1 for _ in range(2))
    half = TOKENS // 2
    t[: half // 2] = t[: half // 2].sign()
    u[half // 2 : half + half // 2] = u[half // 2 : half + half // 2].sign()
    return layer.expansion.center + layer.expansion.radius * t, layer.factor * u


def one_aligned_input(layer: Layer, exact_terms: bool) -> tuple[Tensor, Tensor]:
    """An input [1, F] whose neurons are each where they are most wrong and push the output in one direction.

    That direction is the one in which the largest of their errors points; `exact_terms` leaves out rounding.
    """
    t = torch.cos(torch.linspace(0, torch.pi, 101, dtype=torch.float64))
    z, u, pushes = layer.expansion.center.clone()[None], layer.factor.clone()[None], []
    for neuron in range(len(layer.factor)):
        one = replace(
            layer,
            weight=layer.weight[:, neuron : neuron + 1],
            expansion=single(layer.expansion, neuron),
            orders=layer.orders[neuron : neuron + 1],
        )
        points = (layer.expansion.center[neuron] + layer.expansion.radius[neuron] * t)[:, None]
        factor = layer.factor[neuron].expand(101, 1)
        error = one.released(points, factor, exact_terms) - one.original(points, factor)
        at = int(torch.linalg.vector_norm(error, dim=-1).argmax())
        z[0, neuron] = points[at, 0]
        pushes.append(error[at])
    directions = torch.stack(pushes)
    along = directions @ directions[int(torch.linalg.vector_norm(directions, dim=-1).argmax())]
    return z, u * torch.where(along < 0, -1.0, 1.0)


def single(expansion: Expansion, neuron: int) -> Expansion:
    """The expansion of one neuron of a layer."""
    part = slice(neuron, neuron + 1)
    return Expansion(
        center=expansion.center[part],
        radius=expansion.radius[part],
        chebyshev=expansion.chebyshev[:, part],
        taylor=None if expansion.taylor is None else expansion.taylor[:, part],
    )


def one_constant(neurons: int) -> Expansion:
    """phi = 1 on [-1, 1], which a series of order 1 gives exactly."""
    series = torch.zeros(161, neurons, dtype=torch.float64)
    series[0] = 1.0
    zeros, ones = torch.zeros(neurons).double(), torch.ones(neurons).double()
    return Expansion(zeros, ones, series, None)


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
    assert truncation == pytest.approx(8 * float(errors(expansion)[6, 0]))
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
    enough = errors(layer.expansion)[:129] <= shares
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


# Outside


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
