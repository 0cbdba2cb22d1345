"""Plans: the ladder that calibration climbs, the layout of a layer, and the terms that are released."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.conversion.terms import Subject, terms
from taylor_ops.errors import BadInput
from taylor_ops.model.original import Original
from taylor_ops.modeling.taylor_mlp import basis_features
from taylor_ops.series.activations import ACTIVATIONS, Activation
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.layout import Layout
from taylor_ops.series.plan import Plan
from tests.taylor_ops.conftest import Sample

CONVERSIONS = [
    Conversion(tolerance=1e-3),
    Conversion(tolerance=5e-2, max_order=20),
    Conversion(tolerance=1e-2, range_margin=2.0, dtype="bfloat16"),
    Conversion(basis="taylor", tolerance=2e-2, range_margin=0.1),
    Conversion(order=5, max_order=9),
]


@pytest.fixture(params=CONVERSIONS, ids=lambda conversion: f"{conversion.basis}-{conversion.tolerance:g}")
def conversion(request: pytest.FixtureRequest) -> Conversion:
    chosen: Conversion = request.param
    return chosen


def expansions(sample: Sample, conversion: Conversion) -> Expansions:
    return Subject(Original(sample.original), sample.ranges, conversion).expansions()


def some(ladder: list[Plan]) -> list[Plan]:
    """The cheapest plan, the dearest, and one between."""
    return [ladder[0], ladder[len(ladder) // 2], ladder[-1]]


# The ladder


def test_a_ladder_rises_in_columns_and_starts_with_the_cheapest_plan(
    gated_or_plain: Sample, conversion: Conversion
) -> None:
    fitted = expansions(gated_or_plain, conversion)
    ladder = fitted.ladder()
    columns = [plan.columns for plan in ladder]
    assert all(fewer < more for fewer, more in itertools.pairwise(columns))
    assert {plan.basis for plan in ladder} == {conversion.basis}
    assert {plan.neurons for plan in ladder} == {96}
    if conversion.order is None:
        assert ladder[0].tolerance == conversion.tolerance
        assert ladder[0].least_order == 1
        assert max(plan.tolerance for plan in ladder) == conversion.tolerance
        assert columns[-1] <= 96 * (conversion.max_order + 1)


def test_a_layout_has_the_columns_that_its_plan_counts(gated_or_plain: Sample, conversion: Conversion) -> None:
    fitted = expansions(gated_or_plain, conversion)
    for plan in some(fitted.ladder()):
        layouts = [fitted.layout(path, plan) for path in fitted.paths]
        assert sum(sum(stacked.widths) for stacked in layouts) == plan.columns
        assert sum(len(stacked.neuron) for stacked in layouts) == plan.columns
        assert sum(len(stacked.coefficient) for stacked in layouts) == plan.columns
        mean = torch.cat([stacked.orders for stacked in layouts]).double().mean()
        assert plan.mean_order == pytest.approx(float(mean))


def test_orders_respect_the_least_and_the_highest_order(gated_or_plain: Sample, conversion: Conversion) -> None:
    fitted = expansions(gated_or_plain, conversion)
    for plan in some(fitted.ladder()):
        for path in fitted.paths:
            orders = fitted.layout(path, plan).orders
            assert int(orders.min()) >= plan.least_order
            assert int(orders.max()) <= conversion.max_order
            if conversion.order is not None:
                assert orders.unique().tolist() == [plan.least_order]


def test_a_ladder_of_fixed_orders_has_one_plan_an_order(llama: Sample) -> None:
    ladder = expansions(llama, Conversion(order=5, max_order=9)).ladder()
    assert [plan.least_order for plan in ladder] == [5, 6, 7, 8, 9]
    assert [plan.columns for plan in ladder] == [96 * (order + 1) for order in (5, 6, 7, 8, 9)]


def test_a_higher_plan_never_takes_terms_from_a_neuron(llama: Sample) -> None:
    fitted = llama.expansions
    ladder = fitted.ladder()[::12]
    for path in fitted.paths:
        orders = [fitted.layout(path, plan).orders for plan in ladder]
        assert all(bool((fewer <= more).all()) for fewer, more in itertools.pairwise(orders))


def test_a_neuron_whose_output_weights_are_zero_has_the_fewest_terms_that_a_bundle_can_store(
    gated_or_plain: Sample, conversion: Conversion, tmp_path: Path
) -> None:
    ranges = load_file(gated_or_plain.ranges)
    for name, values in ranges.items():
        if name.endswith((".norms", ".peaks")):
            values[::3] = 0.0
    save_file(ranges, tmp_path / "ranges.safetensors")
    fitted = Expansions(tmp_path / "ranges.safetensors", Original(gated_or_plain.original).activation, conversion)
    for plan in some(fitted.ladder()):
        for path in fitted.paths:
            orders = fitted.layout(path, plan).orders
            assert orders[::3].unique().tolist() == [1]
            assert min(int(orders[1::3].min()), int(orders[2::3].min())) >= plan.least_order
            if conversion.order is None and plan.tolerance == conversion.tolerance:
                assert float(fitted.bound(path, plan).truncation) <= plan.tolerance * (1 + 1e-9)


def worst_errors(activation: Activation, stacked: Layout, basis: Basis) -> Tensor:
    """Largest errors [F] of phi on the intervals of a layer when terms and features are float32, as in a bundle."""
    t = torch.linspace(-1, 1, 201)[:, None].expand(-1, stacked.widths[0]).contiguous()
    features = torch.cat(basis_features(basis, stacked.widths, t, torch.ones_like(t)), dim=-1)
    places = torch.cat([torch.arange(width) for width in stacked.widths])
    found = torch.zeros(201, stacked.widths[0]).index_add_(1, places, features * stacked.coefficient.float())
    exact = activation.value(stacked.center + stacked.radius * t.double())
    return (found - exact).abs().amax(0)


@pytest.mark.parametrize("basis", ["chebyshev", "taylor"])
def test_no_plan_of_a_ladder_has_a_larger_error_than_was_asked_for(llama: Sample, basis: Basis) -> None:
    conversion = Conversion(basis=basis, tolerance=2e-2, range_margin=0.1)
    fitted = expansions(llama, conversion)
    for plan in some(fitted.ladder()):
        for path in fitted.paths:
            stacked = fitted.layout(path, plan)
            error = worst_errors(ACTIVATIONS["silu"], stacked, basis)
            # Cancellation between powers may add as much as is allowed again.
            assert bool((error <= 2 * fitted[path].allowed[stacked.permutation]).all()), (plan, path)


def test_the_tolerance_is_the_bound_of_every_layer(gated_or_plain: Sample, conversion: Conversion) -> None:
    fitted = expansions(gated_or_plain, conversion)
    for plan, path in itertools.product(some(fitted.ladder()), fitted.paths):
        bound = fitted.bound(path, plan)
        if conversion.order is None:
            counted = bound.total if conversion.dtype == "float32" else bound.truncation
            assert 0 < float(counted) <= conversion.tolerance * (1 + 1e-12)
            if plan.least_order == 1:
                assert plan.tolerance / 30 < float(bound.truncation)
        else:
            assert float(bound.total) > 0


def test_what_a_neuron_may_be_wrong_by_depends_on_how_much_it_matters(llama: Sample, tmp_path: Path) -> None:
    ranges = load_file(llama.ranges)
    ranges["model.layers.0.mlp.factor"][:2] = torch.tensor([1e3, 1e-9])
    save_file(ranges, tmp_path / "ranges.safetensors")
    conversion = Conversion(tolerance=0.5)
    before = expansions(llama, conversion)["model.layers.0.mlp"]
    changed = Subject(Original(llama.original), tmp_path / "ranges.safetensors", conversion)
    after = changed.expansions()["model.layers.0.mlp"]
    loud, silent = after.allowed[:2].tolist()
    assert loud < float(before.allowed[0]) / 10
    assert silent == 0.1, "however little it matters, it is right to this"
    assert after.orders(1.0, 64)[0] > before.orders(1.0, 64)[0]


def test_rounding_is_taken_from_the_tolerance_in_float32_and_reported_beside_it_in_16_bits(llama: Sample) -> None:
    for dtype, within in (("float32", True), ("float16", False), ("bfloat16", False)):
        conversion = llama.conversion.model_copy(update={"dtype": dtype, "tolerance": 1e-3})
        fitted = expansions(llama, conversion)
        bound = fitted.bound(fitted.paths[0], fitted.ladder()[0])
        assert (float(bound.total) <= conversion.tolerance) is within
        assert float(bound.truncation) <= conversion.tolerance


@pytest.mark.parametrize(
    "conversion",
    [
        Conversion(basis="taylor", tolerance=1e-3, dtype="bfloat16"),
        Conversion(tolerance=1e-3, max_order=10),
        Conversion(tolerance=1e-5),
    ],
    ids=["too many digits lost between powers", "too few orders", "less than rounding takes"],
)
def test_a_tolerance_out_of_reach_is_refused_with_the_number_of_neurons(llama: Sample, conversion: Conversion) -> None:
    with pytest.raises(BadInput, match=r"for \d+ of 96 neurons \(first in model\.layers\.[01]\.mlp[,)]") as caught:
        expansions(llama, conversion).ladder()
    assert f"basis `{conversion.basis}` cannot keep tolerance {conversion.tolerance:g}" in caught.value.cause


def test_a_plan_survives_the_way_through_its_file(llama: Sample, tmp_path: Path) -> None:
    for conversion in (llama.conversion, Conversion(order=3)):
        plan = expansions(llama, conversion).ladder()[0]
        plan.write(tmp_path / "plan.json")
        assert Plan.read(tmp_path / "plan.json") == plan


# The layout of a layer


def test_neurons_are_sorted_by_falling_order_and_keep_their_places_among_equals(
    gated_or_plain: Sample, conversion: Conversion
) -> None:
    fitted = expansions(gated_or_plain, conversion)
    for plan, path in itertools.product(some(fitted.ladder()), fitted.paths):
        stacked = fitted.layout(path, plan)
        places = stacked.permutation.tolist()
        orders = stacked.orders.tolist()
        assert places == sorted(range(len(orders)), key=lambda neuron: (-orders[neuron], neuron))


def test_columns_are_stacked_order_by_order_with_the_coefficients_of_their_neurons(
    gated_or_plain: Sample, conversion: Conversion
) -> None:
    fitted = expansions(gated_or_plain, conversion)
    plan = fitted.ladder()[0]
    for path in fitted.paths:
        stacked = fitted.layout(path, plan)
        assert stacked.widths == [int((stacked.orders >= n).sum()) for n in range(int(stacked.orders.max()) + 1)]
        start = 0
        for width in stacked.widths:
            assert stacked.neuron[start : start + width].tolist() == stacked.permutation[:width].tolist()
            start += width
        expansion = fitted[path].expansion
        assert torch.equal(stacked.center, expansion.center[stacked.permutation])
        assert torch.equal(stacked.radius, expansion.radius[stacked.permutation])


def test_intervals_cover_what_was_captured_up_to_where_phi_has_reached_its_asymptotes(
    llama: Sample, conversion: Conversion
) -> None:
    fitted = expansions(llama, conversion)
    captured = load_file(llama.ranges)
    for path in fitted.paths:
        limit = ACTIVATIONS["silu"].saturation(fitted[path].allowed)
        low, high = (captured[f"{path}.{end}"].double().clamp(-limit, limit) for end in ("low", "high"))
        expansion = fitted[path].expansion
        assert bool((expansion.center - expansion.radius <= low).all())
        assert bool((expansion.center + expansion.radius >= high).all())


def test_the_carrier_turns_the_larger_of_the_first_two_terms_into_the_bare_output_weights(
    gated_or_plain: Sample, conversion: Conversion, tmp_path: Path
) -> None:
    ranges = load_file(gated_or_plain.ranges)
    for neuron, (low, high) in enumerate([(-60.0, -50.0), (50.0, 60.0), (0.0, 0.0), (-1e-6, 1e-6), (-9.0, -8.0)]):
        ranges["model.layers.0.mlp.low"][neuron] = low
        ranges["model.layers.0.mlp.high"][neuron] = high
    save_file(ranges, tmp_path / "ranges.safetensors")
    fitted = Subject(Original(gated_or_plain.original), tmp_path / "ranges.safetensors", conversion).expansions()
    # A neuron that is never active gets a small series, and no smaller than its dtype can hold.
    least = 1e-6
    for plan, path in itertools.product(some(fitted.ladder()), fitted.paths):
        stacked = fitted.layout(path, plan)
        neurons = stacked.widths[0]
        leading = stacked.coefficient[: 2 * neurons].reshape(2, neurons)
        chosen = stacked.carrier != 0
        assert bool((chosen.sum(0) == 1).all())
        larger = leading.abs().amax(0)
        torch.testing.assert_close((stacked.carrier * leading).sum(0), torch.ones(neurons, dtype=torch.float64))
        torch.testing.assert_close(stacked.carrier.abs().amax(0) * larger, torch.ones(neurons, dtype=torch.float64))
        assert float(larger.min()) > least


# Terms


@given(
    rows=st.integers(1, 130),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    source=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(deadline=None, max_examples=30)
def test_terms_are_the_products_with_the_weights_of_the_released_dtype_rounded_once(
    llama: Sample, rows: int, seed: int, dtype: torch.dtype, source: torch.dtype
) -> None:
    fitted = llama.expansions
    stacked = fitted.layout(fitted.paths[0], llama.plan)
    weight = torch.randn(rows, 48, generator=torch.Generator().manual_seed(seed)).to(source)
    found = terms(weight, stacked, dtype).whole()
    assert found.dtype == dtype
    assert found.shape == (rows, len(stacked.neuron))
    column = seed % len(stacked.neuron)
    exact = weight[:, int(stacked.neuron[column])].to(dtype).double() * float(stacked.coefficient[column])
    assert torch.equal(found[:, column], exact.to(dtype))
    assert math.isfinite(float(found.abs().max()))
