"""The hardened forms give the outputs of the plain one, and the attacks that know them recover a known answer."""

from __future__ import annotations

import pytest
import torch

from benchmarks import hardened
from taylor_ops.attacks import rank_one
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.target import Target
from taylor_ops.audit.run import Score, protected_weights
from taylor_ops.config.audit import Audit
from taylor_ops.model.original import Original
from tests.taylor_ops.conftest import sample


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[ProtectedLayer, torch.Tensor]:
    """A protected layer and its withheld weights."""
    folder = tmp_path_factory.mktemp("hardened")
    released = sample(folder, "llama")
    original = Original(released.original)
    layer = next(Target(released.converted, folder / "target").layers())
    return layer, protected_weights(layer, original.weights(original.mlps[0])).float()


def hidden(seed: int, tokens: int = 400) -> torch.Tensor:
    return torch.randn(tokens, 32, generator=torch.Generator().manual_seed(seed))


def recovered(found: torch.Tensor, truth: torch.Tensor) -> float:
    score = Score()
    score.add(found, truth)
    return float(score.figures()["recovered_1pct"])


def test_without_order_0_the_weights_are_recovered_and_the_outputs_the_same(
    case: tuple[ProtectedLayer, torch.Tensor],
) -> None:
    layer, truth = case
    assert recovered(hardened.recovered_without_order_0(layer), truth) > 0.999
    inputs, width = hidden(0), layer.protected
    features = hardened.features_of(layer, inputs)
    apart = features[:, width:] @ layer.theta[:, width:].T + inputs @ hardened.folded(layer).T
    assert torch.allclose(apart, features @ layer.theta.T, atol=1e-3)


def test_without_intervals_the_weights_are_recovered(case: tuple[ProtectedLayer, torch.Tensor]) -> None:
    layer, truth = case
    weights, found = hardened.recovered_without_intervals(layer)
    assert found == 1
    assert recovered(weights, truth) > 0.99


def test_noise_that_hides_from_the_outputs_beats_rank_one_and_not_the_moments_of_another_text(
    case: tuple[ProtectedLayer, torch.Tensor],
) -> None:
    layer, truth = case
    known = hardened.known_coefficients(layer)
    owner, attacker = (hardened.features_of(layer, hidden(seed)) for seed in (1, 2))
    theta = hardened.with_hidden_noise(layer, owner, 1e-2, known, torch.Generator().manual_seed(0))
    moved, whole = (owner @ terms.T for terms in (theta - layer.theta, layer.theta))
    assert float(moved.norm() / whole.norm()) < 0.02
    noisy = hardened.with_terms(layer, theta)
    by_moments = recovered(hardened.recovered_by_moments(noisy, attacker, known), truth)
    assert recovered(rank_one.recover(noisy, Audit()).weights, truth) < by_moments
    assert by_moments > 0.99


def test_even_noise_is_as_large_as_it_says(case: tuple[ProtectedLayer, torch.Tensor]) -> None:
    layer, _truth = case
    noise = hardened.with_even_noise(layer, 0.1, torch.Generator().manual_seed(0)) - layer.theta
    assert float(noise.norm() / layer.theta.norm()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("size", [2, 4])
def test_mixed_neurons_are_told_apart(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    weights = torch.randn(40, size, generator=generator)
    part = hardened.mixed(weights, torch.rand(size, generator=generator, dtype=torch.float64) + 0.5, generator)
    found = torch.nn.functional.normalize(hardened.unmixed(part), dim=0)
    true = torch.nn.functional.normalize(weights.double(), dim=0)
    assert float((true.T @ found).abs().amax(1).min()) > 0.999
