"""The audit: what the attack recovers of a release whose answer is known, and how recovered weights are scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops.audit import ATTACKS, audit, rank_one
from taylor_ops.audit.result import AttackResult, Score
from taylor_ops.expansion import evaluate
from taylor_ops.models import load_original
from tests.taylor_ops.conftest import CPU, Sample, captured, converted, silent

HEIGHT, NEURONS = 32, 48


def attacked(sample: Sample) -> AttackResult:
    return rank_one.attack(sample.converted, sample.original, silent)


def require_recovered(result: AttackResult) -> None:
    """What a complete recovery means."""
    assert result.recovered_1pct >= 0.999
    assert result.cosine_median > 0.9999
    assert result.cosine_worst > 0.9999


def score(recovered: Tensor, true: Tensor) -> AttackResult:
    scored = Score()
    scored.add(recovered, true)
    return scored.result("known", "here", "none", 0.5)


def of_equal_size(seed: int = 0) -> Tensor:
    """Weights that all have the root mean square of their column, so that relative errors are those of each weight."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (HEIGHT, NEURONS), generator=generator) * 2.0 - 1
    return signs * torch.logspace(-3, 2, NEURONS)


# The attack


def test_the_rank_one_attack_recovers_the_output_weights(gated_or_plain: Sample) -> None:
    result = attacked(gated_or_plain)
    require_recovered(result)
    assert result.recovered_01pct >= 0.999
    assert result.weights == 2 * HEIGHT * NEURONS
    assert result.attack == "rank_one"
    assert result.seconds > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16", "tolerance": 1e-3},
        {"basis": "taylor", "tolerance": 1e-2, "range_margin": 0.1},
        {"order": 6},
    ],
    ids=["bfloat16", "powers", "low order"],
)
def test_the_attack_recovers_releases_of_every_kind(llama: Sample, tmp_path: Path, changes: dict[str, Any]) -> None:
    result = attacked(llama.again(tmp_path / "released", **changes))
    assert result.cosine_worst > 0.999
    assert result.recovered_1pct > 0.9


def only_the_first_order(basis: Any, series: Tensor, t: Tensor) -> Tensor:
    return evaluate(basis, series[:2], t)


def test_an_attack_that_reads_only_the_first_order_fails_the_same_test(
    gated_or_plain: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_one, "evaluate", only_the_first_order)
    with pytest.raises(AssertionError):
        require_recovered(attacked(gated_or_plain))


def weakened(recover: Callable[..., Tensor], spoil: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: spoil(recover(*arguments))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found * torch.where(torch.arange(found.shape[1]) % 2 == 0, 1.0, -1.0),
        lambda found: found / found.norm(dim=0),
        lambda found: found.roll(1, dims=1),
        lambda found: found + 0.05 * found.square().mean(0).sqrt() * torch.ones_like(found),
    ],
    ids=["signs not resolved", "scale not resolved", "neurons in the wrong order", "noise"],
)
def test_a_weakened_attack_fails_the_same_test(
    llama: Sample, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor]
) -> None:
    monkeypatch.setattr(rank_one, "recover_layer", weakened(rank_one.recover_layer, spoil))
    with pytest.raises(AssertionError):
        require_recovered(attacked(llama))


def test_the_original_only_scores_what_is_recovered(llama: Sample, tmp_path: Path) -> None:
    negated = load_original(llama.original, "float32", CPU)
    for layer in negated.model.layers:
        layer.mlp.down_proj.weight.data.neg_()
    negated.save_pretrained(tmp_path / "negated")
    result = rank_one.attack(llama.converted, tmp_path / "negated", silent)
    assert result.recovered_1pct < 0.05
    assert result.cosine_median < -0.9999


def test_neurons_with_equal_gates_are_told_apart(llama: Sample, tmp_path: Path) -> None:
    pruned = load_original(llama.original, "float32", CPU)
    pruned.model.layers[0].mlp.gate_proj.weight.data[[3, 17, 30]] = 0.0
    pruned.save_pretrained(tmp_path / "pruned")
    for path in llama.original.glob("*token*"):
        shutil.copyfile(path, tmp_path / "pruned" / path.name)
    ranges = captured(tmp_path / "pruned", tmp_path / "ranges")
    require_recovered(attacked(converted(tmp_path / "pruned", ranges, llama.conversion, tmp_path / "released")))


# Scores


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
    assert score(recovered, true).recovered_1pct == pytest.approx(1 - 1 / NEURONS)


def test_layers_add_up_by_their_number_of_weights() -> None:
    scored = Score()
    small, large = torch.ones(4, 1), torch.ones(4, 3)
    scored.add(small, small)
    scored.add(-large, large)
    result = scored.result("known", "here", "none", 0.5)
    assert result.weights == 16
    assert result.recovered_1pct == 0.25
    assert (result.cosine_worst, result.cosine_median) == (pytest.approx(-1), pytest.approx(-1))


# The stage


def test_an_audit_runs_the_named_attacks_and_tells_its_progress(llama: Sample) -> None:
    told = []
    record = audit(llama.original, llama.converted, ("rank_one",), lambda *step: told.append(step))
    assert [result.attack for result in record.attacks] == ["rank_one"]
    assert not record.skipped
    assert told == [(1, 2), (2, 2)]
    require_recovered(record.attacks[0])


def test_an_audit_without_attacks_says_that_it_was_skipped(llama: Sample) -> None:
    record = audit(llama.original, llama.converted, (), silent)
    assert record.attacks == ()
    assert record.skipped


def test_every_attack_goes_by_the_name_in_its_result(llama: Sample) -> None:
    for name, attack in ATTACKS.items():
        assert attack(llama.converted, llama.original, silent).attack == name
