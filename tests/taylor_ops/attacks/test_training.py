"""The attacks that train: what fine-tuning, LoRA and distillation from the stored terms win back, and what not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from taylor_ops.attacks import collapse, distillation, fine_tuning, training
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.audit.audit import ATTACKS, TRAININGS, audit
from taylor_ops.audit.record import AttackResult
from taylor_ops.config.audit import Audit
from taylor_ops.config.latency import Latency
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput
from tests.taylor_ops.conftest import CPU, Sample, sample, silent

TEXT = (TextSource(name="project", builtin="running_text"),)


def tuned(released: Sample, name: str, folder: Path, task: tuple[TextSource, ...] = TEXT, **more: Any) -> AttackResult:
    """What one attack that trains a whole model gets, without a rebuilt one."""
    settings = Audit.model_validate({"attacks": (name,), "rebuild": (), "tuning_steps": 24} | more)
    conditions = Conditions((), Latency(), CPU, 0, folder / "audit", task)
    return audit(released.original, released.converted, settings, silent, conditions).attacks[0]


def require_learned(result: AttackResult) -> None:
    """What training for a task means."""
    assert result.task is not None
    assert result.task.loss_after < result.task.loss_before - 0.02


def start_from_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_start", lambda layer, _dense, _generator: collapse.recover(layer, Audit()).weights)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_for_a_task_learns_it_and_finds_no_weights(llama: Sample, tmp_path: Path, name: str) -> None:
    result = tuned(llama, name, tmp_path)
    require_learned(result)
    assert result.recovered_1pct < 0.02
    assert abs(result.cosine_median) < 0.3
    assert result.task is not None
    assert result.task.tokens_held_out * 4 <= result.task.tokens_trained <= 20_480
    assert "24 steps of Adam" in result.budget


@pytest.mark.parametrize("name", TRAININGS)
def test_training_that_takes_no_steps_fails_the_same_test(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(TRAININGS, name, dataclasses.replace(TRAININGS[name], rate=0.0))
    with pytest.raises(AssertionError):
        require_learned(tuned(llama, name, tmp_path))


@pytest.mark.parametrize(
    ("model_type", "protected"),
    [("llama", 0.5), ("gpt2", 1.0), ("mixtral", 1.0)],
    ids=["unprotected", "transposed", "experts"],
)
def test_trained_weights_stand_where_those_of_the_original_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, protected: float
) -> None:
    released = sample(tmp_path, model_type)
    if protected < 1:
        released = released.again(tmp_path / "released", min_protected=protected)
    start_from_the_truth(monkeypatch)
    monkeypatch.setitem(TRAININGS, "fine_tuning", dataclasses.replace(TRAININGS["fine_tuning"], rate=0.0))
    result = tuned(released, "fine_tuning", tmp_path, tuning_steps=1)
    assert result.recovered_1pct > 0.999
    assert result.task is not None
    assert result.task.loss_after == pytest.approx(result.task.loss_original, abs=1e-3)


def test_an_adapter_of_rank_three_changes_weights_by_a_matrix_of_rank_three() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(12, 20, generator=generator)
    adapted = fine_tuning.low_rank_change(start, Audit(lora_rank=3), generator)
    assert torch.equal(adapted.made(), start)
    with torch.no_grad():
        adapted.leaves[0].normal_(generator=generator)
        change = adapted.made() - start
    assert int(torch.linalg.matrix_rank(change, atol=1e-4)) == 3


def test_text_that_is_too_short_or_not_there_is_refused_with_its_place_in_the_config(
    llama: Sample, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("Too short to learn from.", encoding="utf-8")
    short = (TextSource(name="short", file=tmp_path / "short.txt"),)
    with pytest.raises(BadInput, match="at least 640 tokens"):
        tuned(llama, "lora", tmp_path, short)
    with pytest.raises(BadInput, match="there is none"):
        tuned(llama, "lora", tmp_path, ())


def test_a_model_that_memory_does_not_hold_for_training_is_refused(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "room_for_weights", lambda _device: 1000)
    with pytest.raises(BadInput, match="fine-tuning needs"):
        tuned(llama, "fine_tuning", tmp_path)


# Distillation from the stored terms


def distilled(released: Sample, name: str, steps: int) -> AttackResult:
    settings = Audit.model_validate({"attacks": (name,), "rebuild": (), "samples": 1024, "steps": steps})
    return audit(released.original, released.converted, settings, silent).attacks[0]


def require_directions(result: AttackResult) -> None:
    """What a start from the stored terms gives before anything was learned."""
    assert abs(result.cosine_median) > 0.9


def test_distillation_from_the_stored_terms_is_ahead_of_one_from_random(llama: Sample) -> None:
    warm, cold = (distilled(llama, name, 1) for name in ("warm_distillation", "distillation"))
    require_directions(warm)
    with pytest.raises(AssertionError):
        require_directions(cold)
    long = distilled(llama, "warm_distillation", 800)
    assert long.recovered_1pct > 0.95
    assert long.cosine_worst > 0.999


def test_distillation_from_terms_of_the_wrong_neurons_fails_the_same_test(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = distillation.trained

    def shifted(features: Tensor, outputs: Tensor, steps: int, start: Tensor) -> Tensor:
        return trained(features, outputs, steps, start.roll(1, dims=1))

    monkeypatch.setattr("taylor_ops.attacks.distillation.trained", shifted)
    with pytest.raises(AssertionError):
        require_directions(distilled(llama, "warm_distillation", 1))


def test_trainings_and_attacks_are_told_in_the_order_in_which_they_were_named(llama: Sample, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    names = ("rank_one", "lora", "collapse")
    settings = Audit.model_validate({"attacks": names, "rebuild": (), "tuning_steps": 2})
    conditions = Conditions((), Latency(), CPU, 0, tmp_path / "audit", TEXT)
    record = audit(llama.original, llama.converted, settings, lambda *step: told.append(step), conditions)
    assert tuple(result.attack for result in record.attacks) == names
    assert [result.task is not None for result in record.attacks] == [False, True, False]
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_trainings_and_attacks_have_names_of_their_own() -> None:
    assert not ATTACKS.keys() & TRAININGS.keys()
