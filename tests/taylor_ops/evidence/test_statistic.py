"""The statistic of a trace: right where nothing was marked, strong enough where something was, blind to order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from taylor_ops.config.evidence import STRENGTH
from taylor_ops.evidence.alignment import Aligned, align
from taylor_ops.evidence.pattern import BUCKETS, code_of, layer_pattern, model_of, places
from taylor_ops.evidence.statistic import add_up, deviation, log_p, log_p_of_any
from tests.support.evidence_example import KEY

ACME = code_of(KEY, "model", "1.0.0", "acme")


def drawn(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(seed))


def marked(weight: Tensor, strength: float) -> Tensor:
    pattern = layer_pattern(KEY, "model", "mlp", (len(weight), weight.shape[1]))
    factor = torch.ones_like(weight)
    factor[pattern.row, pattern.neuron] += strength * torch.from_numpy(pattern.of(ACME)).float()
    return weight * factor


def added_up(suspect: Tensor, original: Tensor) -> NDArray[np.float64]:
    aligned, total = align(suspect, original), np.zeros(BUCKETS)
    assert aligned is not None
    pattern = layer_pattern(KEY, "model", "mlp", (len(original), original.shape[1]))
    add_up(total, aligned, pattern, torch.arange(original.shape[1]))
    return total


# Strength


@pytest.fixture(scope="module")
def large() -> Tensor:
    return drawn(1024, 2048)


@pytest.mark.parametrize(("share", "found"), [(1.0, True), (0.4, False)])
def test_the_default_strength_is_found_in_two_million_noisy_weights_and_a_weaker_one_is_not(
    large: Tensor, share: float, found: bool
) -> None:
    suspect = marked(large, share * STRENGTH) * (1 + 0.03 * drawn(*large.shape, seed=1))
    p = log_p_of_any(deviation(added_up(suspect, large), ACME), 1000)
    assert (p < math.log(1e-9)) == found


# Chance


def test_p_values_of_the_innocent_are_no_smaller_than_they_may_be(large: Tensor) -> None:
    weight = large[:, :512]
    total = added_up(marked(weight, 2e-2) * (1 + 0.01 * drawn(*weight.shape, seed=2)), weight)
    assert deviation(total, ACME) > 20
    innocent = [deviation(total, code_of(KEY, "model", "1.0.0", f"no-{number}")) for number in range(500)]
    p = np.exp([log_p(z) for z in innocent])
    for limit in (0.5, 0.1, 0.01):
        # Three standard deviations of a share of 500.
        assert (p <= limit).mean() <= limit + 3 * math.sqrt(limit / 500)
    assert abs(np.std(innocent) - 1) < 0.12
    assert abs(np.mean(innocent)) < 0.15


def test_p_values_are_right_over_keys_too(large: Tensor) -> None:
    from taylor_ops.evidence.key import Key

    weight = large[:64, :256]
    suspect = align(marked(weight, 1e-2), weight)
    assert suspect is not None
    found = []
    for number in range(60):
        key, total = Key(number.to_bytes(32, "big")), np.zeros(BUCKETS)
        add_up(total, suspect, layer_pattern(key, "model", "mlp", (64, 256)), torch.arange(256))
        found.append(deviation(total, code_of(key, "model", "1.0.0", "acme")))
    assert max(found) < 4.5
    assert abs(np.std(found) - 1) < 0.35


def test_a_p_value_is_corrected_by_the_number_of_recipients_and_never_above_one() -> None:
    assert log_p(-8.0) == 0
    assert log_p(6.0) == -18
    assert log_p_of_any(6.0, 1000) == pytest.approx(-18 + math.log(1000))
    assert log_p_of_any(0.5, 1000) == 0


def test_an_exact_copy_of_the_original_says_nothing(large: Tensor) -> None:
    weight = large[:64, :128]
    total = added_up(weight, weight)
    assert deviation(total, ACME) == 0


# Alignment


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    part=st.floats(0.2, 1),
    first=st.integers(0, 20),
    rows=st.integers(44, 64),
    smallest=st.floats(1e-3, 1),
)
def test_order_sign_scale_and_cuts_are_undone(seed: int, part: float, first: int, rows: int, smallest: float) -> None:
    original = drawn(64, 96, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    order = torch.randperm(96, generator=generator)[: max(1, int(96 * part))]
    scale = smallest + torch.rand(len(order), generator=generator)
    scale *= torch.where(torch.rand(len(order), generator=generator) < 0.5, -1.0, 1.0)
    last = min(64, first + rows)
    found = align((original[:, order] * scale)[first:last], original)
    assert found is not None
    assert found.row == first
    assert torch.equal(found.neuron, order)
    assert torch.allclose(found.suspect, found.original, rtol=1e-4, atol=1e-5)


def test_weights_of_another_model_are_aligned_with_nothing() -> None:
    assert align(drawn(64, 96, 1), drawn(64, 96, 2)) is None
    assert align(drawn(80, 96, 1), drawn(64, 96, 2)) is None
    assert align(drawn(64, 0), drawn(64, 96)) is None


def test_columns_that_are_not_of_the_original_are_left_out() -> None:
    original = drawn(64, 96)
    suspect = torch.cat([original[:, :60], drawn(64, 36, 9)], dim=1)
    found = align(suspect, original)
    assert isinstance(found, Aligned)
    assert torch.equal(found.neuron, torch.arange(60))


# The pattern


def test_the_order_of_neurons_follows_from_their_input_weights_in_any_data_type() -> None:
    gate, order = drawn(48, 32), torch.randperm(48, generator=torch.Generator().manual_seed(3))
    assert sorted(places(gate).tolist()) == list(range(48))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(places(gate[order].to(dtype)), places(gate)[order])
        assert model_of(gate[order].to(dtype)) == model_of(gate)
    assert model_of(drawn(48, 32, 1)) != model_of(gate)


def test_patterns_stay_what_they_are_from_version_to_version() -> None:
    """Copies that were handed out are traced for years: these digits must not change."""
    pattern = layer_pattern(KEY, "model", "mlp", (64, 64))
    found = [array.tolist() for array in (pattern.row, pattern.neuron, pattern.sign, pattern.bucket, ACME[:8])]
    assert found == FIXED


FIXED: list[list[int]] = [
    [0, 24, 32, 33, 35, 37, 40, 48, 48, 53, 57, 62, 63],
    [39, 35, 10, 55, 25, 47, 32, 9, 23, 51, 39, 3, 3],
    [1, 1, -1, -1, -1, -1, 1, 1, -1, -1, 1, 1, 1],
    [20824, 52758, 59070, 4266, 47108, 2503, 15674, 38308, 50859, 41826, 38828, 60399, 10219],
    [-1, 1, 1, -1, -1, 1, 1, 1],
]


def test_one_weight_in_256_is_marked_with_balanced_signs() -> None:
    pattern = layer_pattern(KEY, "model", "mlp", (1024, 4096))
    assert abs(len(pattern.row) / (1024 * 4096 / 256) - 1) < 0.04
    assert abs(float(pattern.sign.mean())) < 0.04
    assert np.bincount(pattern.bucket, minlength=BUCKETS).max() < 8


def test_signs_are_balanced_and_differ_by_everything_that_they_follow_from() -> None:
    codes = [
        code_of(KEY, *parts)
        for parts in (("m", "1.0.0", "acme"), ("m", "1.0.0", "acmf"), ("m", "1.0.1", "acme"), ("n", "1.0.0", "acme"))
    ]
    assert all(set(np.unique(code)) == {-1, 1} for code in codes)
    products = [abs(int(a.astype(int) @ b)) for n, a in enumerate(codes) for b in codes[:n]]
    assert max(products) < 5 * math.sqrt(BUCKETS)
    # What is joined of two parts is not what is joined of two others.
    assert not np.array_equal(code_of(KEY, "m", "1", "0a"), code_of(KEY, "m", "10", "a"))
