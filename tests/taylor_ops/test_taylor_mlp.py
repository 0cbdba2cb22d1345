"""The layer that ships in a bundle: its features, its output inside and far outside the captured ranges.

Long because every part of the layer is tested against one original, which the first part builds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from taylor_ops.activations import ACTIVATIONS, Activation
from taylor_ops.bound import OutputWeights
from taylor_ops.config import Basis, Conversion
from taylor_ops.convert import mlp_tensors
from taylor_ops.errors import BadInput
from taylor_ops.expansion import evaluate, signs
from taylor_ops.modeling import taylor_mlp
from taylor_ops.modeling.taylor_mlp import Columns, TaylorMLP, basis_features, install
from taylor_ops.original import MlpWeights
from taylor_ops.plan import Expansions, Layout, terms

HIDDEN, NEURONS, TOKENS = 12, 40, 300
PATH = "model.layers.0.mlp"


class OriginalMLP(nn.Module):
    """A gated or plain MLP with layers of the names that its roles give."""

    def __init__(self, activation: Activation, gated: bool, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.activation = activation
        self.gate = nn.Linear(HIDDEN, NEURONS, bias=not gated)
        self.up = nn.Linear(HIDDEN, NEURONS, bias=False) if gated else None
        self.down = nn.Linear(NEURONS, HIDDEN, bias=not gated)
        nn.init.normal_(self.gate.weight, std=HIDDEN**-0.5)
        # From neurons that are almost linear to neurons that reach both asymptotes.
        with torch.no_grad():
            self.gate.weight *= torch.logspace(-2, 0.6, NEURONS)[torch.randperm(NEURONS)][:, None]

    def forward(self, x: Tensor) -> Tensor:
        z = self.gate(x)
        hidden = self.activation.value(z)
        return self.down(hidden if self.up is None else hidden * self.up(x))


def expansions(folder: Path, low: Tensor, high: Tensor, original: OriginalMLP, conversion: Conversion) -> Expansions:
    """The expansions of one layer whose captured ranges are given, as if its outputs had the norm 1."""
    weights = OutputWeights.of(original.down.weight.detach())
    numbers = {"output_norm": 1.0, "rows": weights.rows, "alignment": weights.alignment}
    named = {"low": low, "high": high, "factor": torch.ones_like(low), "norms": weights.norms, "peaks": weights.peaks}
    named |= {name: torch.tensor([number]) for name, number in numbers.items()}
    save_file({f"{PATH}.{name}": value.float() for name, value in named.items()}, folder / "ranges.safetensors")
    return Expansions(folder / "ranges.safetensors", original.activation, conversion)


def released(original: OriginalMLP, stacked: Layout, basis: Basis, dtype: torch.dtype = torch.float32) -> TaylorMLP:
    """The Taylor MLP of an original, filled as a bundle fills it."""
    with torch.no_grad():
        weights = MlpWeights(
            gate=original.gate.weight,
            up=None if original.up is None else original.up.weight,
            down=original.down.weight,
            gate_bias=original.gate.bias,
            down_bias=original.down.bias,
        )
        gated = original.up is not None
        biases = () if gated else ("gate", "terms")
        taylor = TaylorMLP(HIDDEN, basis, stacked.widths, original.activation.name, gated, biases).to(dtype)
        taylor.load_state_dict(mlp_tensors(weights, stacked, dtype))
    return taylor


class Case:
    """An original MLP, its inputs, and its release under one conversion."""

    def __init__(self, folder: Path, activation: str, gated: bool, conversion: Conversion) -> None:
        self.original = OriginalMLP(ACTIVATIONS[activation], gated)
        self.inputs = torch.randn(TOKENS, HIDDEN)
        with torch.no_grad():
            z = self.original.gate(self.inputs)
        fitted = expansions(folder, z.amin(0), z.amax(0), self.original, conversion)
        self.plan = fitted.ladder()[0]
        self.layout = fitted.layout(PATH, self.plan)
        self.error = fitted[PATH].error_at(self.layout.orders)
        self.taylor = released(self.original, self.layout, conversion.basis)

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pre-activations, factors [N, F] and the magnitudes of the output weights [H, F], in float64."""
        with torch.no_grad():
            z = self.original.gate(inputs).double()
            factor = torch.ones_like(z) if self.original.up is None else self.original.up(inputs).double()
            return z, factor.abs(), self.original.down.weight.double().abs()

    def rounding(self, inputs: Tensor) -> Tensor:
        """What float32 may add to each output [N, H]: its precision times the magnitudes that are summed."""
        z, factor, weight = self.parts(inputs)
        return 1e-5 * (1 + (factor * (1 + z.abs())) @ weight.T)


CASES = [
    ("silu", True, Conversion(tolerance=1e-3)),
    ("silu", True, Conversion(tolerance=1e-1, range_margin=0.1)),
    ("gelu_new", False, Conversion(tolerance=1e-3)),
    ("gelu", False, Conversion(tolerance=2e-4)),
    ("quick_gelu", True, Conversion(tolerance=1e-2)),
    ("silu", True, Conversion(basis="taylor", tolerance=1e-1, range_margin=0.0)),
    ("gelu_new", False, Conversion(basis="taylor", tolerance=1e-1, range_margin=0.0)),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[2].basis}-{case[2].tolerance:g}")
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(tmp_path, *request.param)


@pytest.fixture
def silu_case(tmp_path: Path) -> Case:
    return Case(tmp_path, "silu", True, Conversion(tolerance=1e-3))


# Features


@given(
    orders=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    basis=st.sampled_from(["chebyshev", "taylor"]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_features_are_the_factor_times_each_basis_function(orders: list[int], basis: Basis, seed: int) -> None:
    widths = [sum(order >= n for order in orders) for n in range(max(orders) + 1)]
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(5, len(orders), generator=generator, dtype=torch.float64) * 2 - 1
    factor = torch.randn(5, len(orders), generator=generator, dtype=torch.float64)
    features = basis_features(basis, widths, t, factor)
    assert [feature.shape[-1] for feature in features] == widths
    pattern = signs(len(widths)).numpy()
    for n, (feature, width) in enumerate(zip(features, widths, strict=True)):
        if basis == "chebyshev":
            function = pattern[n] * np.polynomial.chebyshev.chebval(t.numpy(), np.eye(n + 1)[n]) - (n in (2, 4))
        else:
            function = t.numpy() ** n
        np.testing.assert_allclose(feature.numpy(), (factor.numpy() * function)[:, :width], atol=1e-12)


@given(
    orders=st.lists(st.integers(1, 128), min_size=1, max_size=12),
    basis=st.sampled_from(["chebyshev", "taylor"]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=50)
def test_the_closed_form_gives_the_same_features_as_the_recurrence(orders: list[int], basis: Basis, seed: int) -> None:
    widths = [sum(order >= n for order in orders) for n in range(max(orders) + 1)]
    generator = torch.Generator().manual_seed(seed)
    t = (torch.rand(5, len(orders), generator=generator) * 2 - 1).clamp(-1, 1)
    t[0], t[1], t[2] = 1, -1, 0
    factor = torch.randn(5, len(orders), generator=generator)
    found = taylor_mlp.closed_form_features(basis, Columns.of(widths, t.device), t, factor)
    expected = torch.cat(basis_features(basis, widths, t.double(), factor.double()), dim=-1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("times", [1.0, 10.0])
def test_a_few_tokens_give_what_many_give(case: Case, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    with torch.no_grad():
        few = case.taylor(case.inputs * times)
        monkeypatch.setattr(taylor_mlp, "_FEW_FEATURES", {"cpu": 1 << 40} if case.taylor._columns is None else {})
        other = case.taylor(case.inputs * times)
    scale = 1e-5 * float(case.layout.coefficient.abs().max()) + 1e-5
    assert case.taylor._columns is not None
    torch.testing.assert_close(few, other, rtol=1e-5, atol=scale)


@given(order=st.integers(1, 40), basis=st.sampled_from(["chebyshev", "taylor"]), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_features_times_coefficients_are_the_series_as_the_fit_evaluates_it(
    order: int, basis: Basis, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    series = torch.randn(order + 1, 6, generator=generator, dtype=torch.float64)
    t = torch.rand(4, 6, generator=generator, dtype=torch.float64) * 2 - 1
    features = basis_features(basis, [6] * (order + 1), t, torch.ones_like(t))
    total = (torch.stack(features) * series[:, None]).sum(0)
    torch.testing.assert_close(total, evaluate(basis, series, t), rtol=0, atol=1e-11)


# Inside the captured ranges


def test_inside_its_intervals_the_output_is_that_of_the_original_within_the_truncation_bound(case: Case) -> None:
    with torch.no_grad():
        apart = (case.taylor(case.inputs) - case.original(case.inputs)).abs().double()
    _, factor, weight = case.parts(case.inputs)
    truncation = (factor * case.error) @ weight.T
    powers = case.layout.coefficient.abs().max() * torch.finfo(torch.float32).eps * (factor @ weight.T)
    assert bool((apart <= truncation + case.rounding(case.inputs) + powers).all())
    assert bool((case.error > 0).all())


def test_a_layer_keeps_the_leading_shape_of_its_input(silu_case: Case) -> None:
    with torch.no_grad():
        flat = silu_case.taylor(silu_case.inputs)
        batched = silu_case.taylor(silu_case.inputs.reshape(3, 100, HIDDEN))
    torch.testing.assert_close(batched, flat.reshape(3, 100, HIDDEN))


def test_a_layer_takes_an_empty_batch_as_the_original_does(silu_case: Case) -> None:
    nothing = torch.empty(2, 0, HIDDEN)
    assert silu_case.taylor(nothing).shape == silu_case.original(nothing).shape


@pytest.mark.parametrize("rows", [1, 7, 150, 299])
@pytest.mark.parametrize("gated", [True, False])
def test_many_rows_in_chunks_give_what_one_chunk_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, gated: bool
) -> None:
    case = Case(tmp_path, "silu", gated, Conversion(tolerance=1e-2))
    calls = []
    case.taylor.terms.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        whole = case.taylor(case.inputs)
        monkeypatch.setattr(taylor_mlp, "_FEATURE_BYTES", rows * 4 * len(case.layout.neuron))
        chunked = case.taylor(case.inputs)
    assert len(calls) == 1 + -(-TOKENS // rows)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5)


def test_the_output_is_the_same_with_and_without_gradients(case: Case) -> None:
    inputs = case.inputs * torch.tensor([1.0, 5.0]).repeat(TOKENS // 2)[:, None]
    tracked = case.taylor(inputs)
    with torch.no_grad():
        plain = case.taylor(inputs)
    with torch.inference_mode():
        inferred = case.taylor(inputs)
    assert tracked.requires_grad
    scale = 1e-6 * float(case.layout.coefficient.abs().max()) + 1e-5
    torch.testing.assert_close(plain, tracked.detach(), rtol=1e-5, atol=scale)
    assert torch.equal(inferred, plain)


def test_features_are_float32_whatever_the_default_dtype_of_the_process(silu_case: Case) -> None:
    with torch.no_grad():
        expected = silu_case.taylor(silu_case.inputs)
        torch.set_default_dtype(torch.bfloat16)
        try:
            found = silu_case.taylor(silu_case.inputs)
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_gradients_of_the_input_are_those_of_the_original(silu_case: Case) -> None:
    gradients = []
    for model in (silu_case.original, silu_case.taylor):
        inputs = silu_case.inputs.clone().requires_grad_()
        model(inputs).square().sum().backward()
        assert inputs.grad is not None
        gradients.append(inputs.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-2, atol=1e-2 * float(gradients[0].abs().max()))


def test_interval_parameters_are_not_trained_but_the_layers_are(silu_case: Case) -> None:
    silu_case.taylor(silu_case.inputs).sum().backward()
    own = dict(silu_case.taylor.named_parameters(recurse=False))
    assert own
    assert not any(parameter.requires_grad for parameter in own.values())
    layers = [parameter for name, parameter in silu_case.taylor.named_parameters() if name not in own]
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in layers)


# Outside the captured ranges


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


# Installation


TAYLOR = {
    "basis": "taylor",
    "activation": "silu",
    "hidden_size": HIDDEN,
    "gated": True,
    "biases": [],
    "experts": [],
    "clear": {},
}


def test_install_replaces_the_listed_mlps_and_leaves_the_others() -> None:
    model = nn.Module()
    model.first = OriginalMLP(ACTIVATIONS["silu"], gated=True)
    model.second = OriginalMLP(ACTIVATIONS["silu"], gated=True)
    install(model, TAYLOR | {"layers": {"first": [NEURONS, NEURONS, 7]}, "bypassed": [], "guard": "first.down.weight"})
    assert isinstance(model.first, TaylorMLP)
    assert isinstance(model.second, OriginalMLP)
    assert model.first.terms.weight.shape == (HIDDEN, 2 * NEURONS + 7)
    assert model.first.terms.bias is None
    assert model.first.gate.bias is None
    assert model.get_parameter("first.down.weight").shape == (1,)


def test_install_bypasses_what_stood_between_the_layers_of_an_mlp() -> None:
    model = nn.Module()
    model.fc1, model.act, model.fc2 = nn.Linear(HIDDEN, NEURONS), nn.ReLU(), nn.Linear(NEURONS, HIDDEN)
    install(
        model,
        TAYLOR
        | {"gated": False, "layers": {"fc1": [NEURONS, NEURONS]}, "bypassed": ["act", "fc2"], "guard": "fc2.weight"},
    )
    assert isinstance(model.fc1, TaylorMLP)
    assert model.fc1.up is None
    assert model.get_parameter("fc2.weight").shape == (1,)
    inputs = torch.randn(3, HIDDEN)
    assert model.fc2(model.act(inputs)) is inputs


def test_experts_say_what_each_says_alone_weighted_as_routed() -> None:
    model = nn.Module()
    model.experts = nn.Module()
    layers = {f"experts.{expert}": [NEURONS, NEURONS, 5 + expert] for expert in range(3)}
    install(model, TAYLOR | {"experts": ["experts"], "layers": layers, "bypassed": [], "guard": "experts.down"})
    for parameter in model.parameters():
        parameter.data = torch.rand(parameter.shape) + 0.5
    tokens, chosen = torch.randn(4, HIDDEN), torch.tensor([[0, 2], [2, 0], [0, 2], [2, 0]])
    weights = torch.rand(4, 2)
    with torch.no_grad():
        found = model.experts(tokens, chosen, weights)
        alone = [model.get_submodule(f"experts.{expert}")(tokens) for expert in range(3)]
        expected = sum(weights[:, k, None] * torch.stack(alone)[chosen[:, k], torch.arange(4)] for k in range(2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
