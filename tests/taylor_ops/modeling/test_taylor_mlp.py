"""The layer that ships in a bundle: its features, its output inside the captured ranges, its installation."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.modeling import taylor_mlp
from taylor_ops.modeling.taylor_mlp import Columns, TaylorMLP, basis_features, install
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.expansion import evaluate, signs
from tests.support.mlp_example import HIDDEN, NEURONS, TOKENS, Case, OriginalMLP

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
        monkeypatch.setitem(taylor_mlp._FEATURE_BYTES, "cpu", rows * 4 * len(case.layout.neuron))
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


# Copies


def saved_and_loaded(taylor: TaylorMLP) -> TaylorMLP:
    whole = io.BytesIO()
    torch.save(taylor, whole)
    whole.seek(0)
    loaded: TaylorMLP = torch.load(whole, weights_only=False)
    return loaded


def there_and_back(taylor: TaylorMLP) -> TaylorMLP:
    """The same layer, after it was cast to a type that holds its values, and back."""
    return taylor.double().float()


@pytest.mark.parametrize("copied", [saved_and_loaded, copy.deepcopy, there_and_back])
def test_a_layer_at_work_is_copied_and_cast_without_what_it_made_on_the_way(
    case: Case, copied: Callable[[TaylorMLP], TaylorMLP]
) -> None:
    with torch.inference_mode():
        expected = case.taylor(case.inputs[:1])
    assert case.taylor._columns is not None
    other = copied(case.taylor)
    assert other._columns is None
    with torch.inference_mode():
        assert torch.equal(other(case.inputs[:1]), expected)


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


def test_an_expert_to_which_no_token_is_routed_is_not_run() -> None:
    class Expert(torch.nn.Module):
        """Says twice what it hears, and whether it was asked."""

        asked = 0

        def forward(self, hidden_states: Tensor) -> Tensor:
            self.asked += 1
            return 2 * hidden_states

    experts = taylor_mlp.TaylorExperts([Expert() for _ in range(4)])
    hidden_states, routed = torch.randn(3, 5), torch.tensor([[0, 3], [3, 0], [0, 3]])
    found = experts(hidden_states, routed, torch.full((3, 2), 0.5))
    torch.testing.assert_close(found, 2 * hidden_states)
    assert [expert.asked for expert in experts] == [1, 0, 0, 1]


class WaitsForTheDevice(TorchDispatchMode):
    """Counts the searches for tokens, at each of which a processor waits for its GPU."""

    searches = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.searches += func is torch.ops.aten.nonzero.default
        return func(*args, **(kwargs or {}))


def test_tokens_are_looked_for_of_those_experts_alone_that_have_some() -> None:
    experts = taylor_mlp.TaylorExperts([nn.Identity() for _ in range(128)])
    with WaitsForTheDevice() as waits:
        experts(torch.randn(2, 5), torch.tensor([[3, 90], [90, 17]]), torch.full((2, 2), 0.5))
    assert waits.searches == 3


@pytest.mark.parametrize("tokens", [0, 1, 5, 200])
def test_experts_add_up_to_the_bytes_of_a_loop_over_all(tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    experts = taylor_mlp.TaylorExperts([nn.Linear(6, 6) for _ in range(16)])
    hidden_states, scores = (torch.randn(tokens, size, generator=generator) for size in (6, 16))
    weights, routed = scores.softmax(-1).topk(4)
    expected = torch.zeros_like(hidden_states)
    with torch.no_grad():
        for number, expert in enumerate(experts):
            token, place = torch.where(routed == number)
            expected.index_add_(0, token, expert(hidden_states[token]) * weights[token, place, None])
        assert torch.equal(experts(hidden_states, routed, weights), expected)


def test_compiled_experts_are_not_compiled_again_for_every_routing() -> None:
    graphs: list[Any] = []

    def counting(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    experts = taylor_mlp.TaylorExperts([nn.Linear(6, 6) for _ in range(16)])
    compiled = torch.compile(experts, backend=counting, dynamic=True)
    routings = [torch.tensor([[first, first + second]]) for first in range(8) for second in range(1, 8)]
    hidden_states, weights = torch.randn(1, 6), torch.tensor([[0.75, 0.25]])
    made = []
    with torch.inference_mode():
        for routed in routings:
            torch.testing.assert_close(
                compiled(hidden_states, routed, weights), experts(hidden_states, routed, weights)
            )
            made.append(len(graphs))
    assert made[-1] == made[2]
