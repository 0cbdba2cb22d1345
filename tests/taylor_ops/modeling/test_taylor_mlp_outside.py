"""The layer that ships in a bundle far outside its captured ranges, at a kink, and in short data types."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.conversion.terms import terms
from taylor_ops.errors import BadInput
from taylor_ops.modeling import taylor_mlp
from taylor_ops.modeling.taylor_mlp import TaylorMLP
from taylor_ops.series.activations import ACTIVATIONS
from tests.support.mlp_example import HIDDEN, NEURONS, PATH, Case, OriginalMLP, expansions, released


@pytest.mark.parametrize("times", [2.0, 10.0, 1000.0])
def test_far_outside_its_intervals_the_output_is_still_within_the_truncation_bound(case: Case, times: float) -> None:
    inputs = case.inputs * times
    with torch.no_grad():
        found, exact = case.taylor(inputs).double(), case.original(inputs).double()
    _, factor, weight = case.parts(inputs)
    rounding = case.layout.coefficient.abs().max() * torch.finfo(torch.float32).eps
    bound = factor * (case.error + rounding) @ weight.T + case.rounding(inputs)
    assert bool(((found - exact).abs() <= bound).all())


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_new", "quick_gelu"])
def test_the_layer_and_the_original_are_finite_for_the_same_infinities(tmp_path: Path, name: str) -> None:
    case = Case(tmp_path, name, False, Conversion(tolerance=1e-2))
    z = torch.tensor([[-torch.inf, torch.inf, -1e30, 1e30, 0.0]]).repeat(NEURONS, 1).T.contiguous()
    with torch.no_grad():
        features = case.taylor.features(z, None)
    phi = taylor_mlp.SMOOTH[case.original.activation.name]
    assert torch.equal(features[:, :NEURONS].isfinite(), phi(z).isfinite())


ENDS = [(-2.0, 1.0), (0.5, 4.0), (-9.0, -4.0), (-0.25, 8.0)]
"""Ends of intervals on every stretch of silu."""


@pytest.fixture
def silu_alone(tmp_path: Path) -> tuple[TaylorMLP, Tensor, Tensor]:
    """A plain Taylor MLP that gives silu itself on four intervals, with their lower and upper ends."""
    low, high = (torch.tensor(end) for end in zip(*ENDS, strict=True))
    activation = ACTIVATIONS["silu"]
    original = OriginalMLP(activation, gated=False)
    original.gate, original.down = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        original.gate.weight.copy_(torch.eye(4))
        original.down.weight.copy_(torch.eye(4))
    fitted = expansions(tmp_path, low, high, original, Conversion(tolerance=4e-6, range_margin=0.0))
    stacked = fitted.layout(PATH, fitted.ladder()[0])
    taylor = TaylorMLP(4, "chebyshev", stacked.widths, "silu", gated=False)
    with torch.no_grad():
        taylor.get_parameter("gate.weight").copy_(torch.eye(4)[stacked.permutation])
        taylor.get_parameter("terms.weight").copy_(terms(torch.eye(4), stacked, torch.float32).whole())
        for name, parameter in taylor.named_parameters(recurse=False):
            parameter.copy_(getattr(stacked, name))
    back = torch.argsort(stacked.permutation)
    return taylor, (stacked.center - stacked.radius)[back].float(), (stacked.center + stacked.radius)[back].float()


def test_phi_leaves_its_interval_as_exact_as_it_is_inside(silu_alone: tuple[TaylorMLP, Tensor, Tensor]) -> None:
    taylor, low, high = silu_alone
    for step in (1e-4, 1e-2, 1.0, 30.0, 1000.0):
        for z in (low - step, low + step, high - step, high + step):
            with torch.no_grad():
                apart = (taylor(z) - ACTIVATIONS["silu"].value(z)).abs()
            assert bool((apart < 6e-6 + 1e-6 * z.abs()).all())


@pytest.mark.parametrize("basis", ["chebyshev", "taylor"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("name", ["relu", "relu2"])
def test_a_kinked_activation_is_exact_however_far_outside_its_captured_range(
    tmp_path: Path, name: str, gated: bool, basis: Basis
) -> None:
    case = Case(tmp_path, name, gated, Conversion(tolerance=1e-2, basis=basis))
    assert case.plan.mean_order == {"relu": 1, "relu2": 2}[name]
    for times in (1.0, 10.0, 1000.0):
        with torch.no_grad():
            apart = (case.taylor(case.inputs * times) - case.original(case.inputs * times)).abs().double()
        z, factor, weight = case.parts(case.inputs * times)
        size = (factor * (1 + z.abs()) ** case.plan.mean_order) @ weight.T
        # Near the kink the terms are as large as in the middle of the range and cancel.
        middle = (factor * case.layout.radius.max() ** case.plan.mean_order) @ weight.T
        assert bool((apart <= 1e-5 * (1 + size + middle)).all())


@pytest.mark.parametrize("name", ["relu", "relu2"])
def test_a_kinked_activation_survives_the_infinities_that_the_original_survives(tmp_path: Path, name: str) -> None:
    case = Case(tmp_path, name, False, Conversion(tolerance=1e-2))
    z = torch.tensor([[-torch.inf]]).repeat(1, NEURONS)
    with torch.no_grad():
        features = case.taylor.features(z, None)
    assert bool((features == 0).all())


def test_an_order_other_than_the_degree_of_a_kinked_activation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`relu` is a polynomial of degree 1 right of its kink"):
        Case(tmp_path, "relu", True, Conversion(order=4))


def test_float16_features_end_where_float16_does_and_stay_finite(silu_case: Case) -> None:
    huge = silu_case.inputs * 1e6
    with torch.no_grad():
        stored = silu_case.taylor._stored(
            silu_case.taylor.features(huge @ torch.ones(HIDDEN, NEURONS), None), torch.float16
        )
    assert stored.dtype == torch.float16
    assert bool(stored.isfinite().all())


@pytest.mark.parametrize("times", [1.0, 10.0, 1000.0])
def test_a_layer_cast_to_bfloat16_stays_finite(case: Case, times: float) -> None:
    inputs = (case.inputs * times).bfloat16()
    taylor = case.taylor.bfloat16()
    with torch.no_grad():
        found = taylor(inputs)
        exact = case.original.bfloat16()(inputs)
    assert found.dtype == torch.bfloat16
    assert bool(found.isfinite().all())
    if case.plan.basis == "chebyshev":
        apart = (found - exact).float().norm() / exact.float().norm()
        assert float(apart) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["silu", "gelu_new", "gelu"])
def test_in_a_short_dtype_rounding_costs_no_more_than_it_costs_the_original(
    tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    # Intervals several times as wide as where a neuron mostly is, as captured ranges are.
    original = OriginalMLP(ACTIVATIONS[name], gated=True)
    nn.init.normal_(original.gate.weight, std=HIDDEN**-0.5)
    reach = torch.full((NEURONS,), 5.0)
    conversion = Conversion(tolerance=1e-3, range_margin=0.0)
    fitted = expansions(tmp_path, -reach, reach, original, conversion)
    taylor = released(original, fitted.layout(PATH, fitted.ladder()[0]), "chebyshev", dtype)
    inputs = torch.randn(2000, HIDDEN).to(dtype)
    original = original.to(dtype)
    up, down = original.up, original.down.weight
    assert up is not None
    with torch.no_grad():
        exact = (original.activation.value(original.gate(inputs).double()) * up(inputs)) @ down.double().T
        own, found = ((model(inputs) - exact).norm() for model in (original, taylor))
    assert float(found) < float(own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["silu", "gelu_new"])
def test_neurons_that_were_never_active_do_no_harm_in_any_release_dtype(
    tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    original = OriginalMLP(ACTIVATIONS[name], gated=True)
    low = torch.full((NEURONS,), -40.0)
    fitted = expansions(tmp_path, low, low + 5, original, Conversion(tolerance=1e-2))
    taylor = released(original, fitted.layout(PATH, fitted.ladder()[0]), "chebyshev", dtype)
    inputs = torch.randn(50, HIDDEN).to(dtype)
    with torch.no_grad():
        assert bool(taylor(inputs).isfinite().all())
