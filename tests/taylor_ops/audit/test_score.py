"""Scores of recovered weights: shares within limits, and cosines, column by column."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops.audit.run import Score

HEIGHT, NEURONS = 32, 48


def score(recovered: Tensor, true: Tensor) -> SimpleNamespace:
    scored = Score()
    scored.add(recovered, true)
    return SimpleNamespace(**scored.figures())


def of_equal_size(seed: int = 0) -> Tensor:
    """Weights that all have the root mean square of their column, so that relative errors are those of each weight."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (HEIGHT, NEURONS), generator=generator) * 2.0 - 1
    return signs * torch.logspace(-3, 2, NEURONS)


@given(
    error=st.floats(0, 0.03).filter(lambda error: min(abs(error - 1e-2), abs(error - 1e-3)) > 1e-5),
    wrong=st.integers(0, HEIGHT),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_the_score_counts_the_weights_within_each_limit(error: float, wrong: int, seed: int) -> None:
    true = of_equal_size(seed)
    recovered = true.clone()
    recovered[:wrong] *= 1 + error
    result = score(recovered, true)
    assert result.recovered_1pct == pytest.approx(1.0 if error <= 1e-2 else 1 - wrong / HEIGHT)
    assert result.recovered_01pct == pytest.approx(1.0 if error <= 1e-3 else 1 - wrong / HEIGHT)


def test_errors_are_measured_by_the_size_of_the_column_so_that_small_weights_count_no_more_than_large_ones() -> None:
    true = of_equal_size()
    true[0] *= 1e-6
    recovered = true.clone()
    recovered[0] = 0
    assert score(recovered, true).recovered_01pct == 1.0


def test_a_flipped_sign_is_not_recovered() -> None:
    true = of_equal_size()
    recovered = true.clone()
    recovered[:, 5] *= -1
    result = score(recovered, true)
    assert result.recovered_1pct == pytest.approx(1 - 1 / NEURONS)
    assert result.cosine_worst == pytest.approx(-1)
    assert result.cosine_median == pytest.approx(1)
    assert score(-true, true).recovered_1pct == 0
    assert score(-true, true).cosine_median == pytest.approx(-1)


@pytest.mark.parametrize("nothing", [0.0, float("nan"), float("inf")])
def test_columns_without_a_usable_value_are_not_recovered(nothing: float) -> None:
    true = of_equal_size()
    recovered = true.clone()
    recovered[:, 7] = nothing
    result = score(recovered, true)
    assert result.recovered_1pct == pytest.approx(1 - 1 / NEURONS)
    assert result.cosine_worst == pytest.approx(0)
    assert result.cosine_median == pytest.approx(1)


def test_layers_add_up_by_their_number_of_weights() -> None:
    scored = Score()
    small, large = torch.ones(4, 1), torch.ones(4, 3)
    scored.add(small, small)
    scored.add(-large, large)
    result = SimpleNamespace(**scored.figures())
    assert result.weights == 16
    assert result.recovered_1pct == 0.25
    assert (result.cosine_worst, result.cosine_median) == (pytest.approx(-1), pytest.approx(-1))
