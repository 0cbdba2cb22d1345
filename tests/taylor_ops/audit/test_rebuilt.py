"""The model that an attack rebuilds: its tokens, its speed, and what compiling leaves of the slowdown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from taylor_ops.attacks import collapse, training
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.target import Target
from taylor_ops.audit import rebuilt as rebuilt_room
from taylor_ops.audit import timing
from taylor_ops.audit.audit import TRAININGS, audit
from taylor_ops.audit.rebuilt import continued_along, held_out
from taylor_ops.audit.record import AttackResult
from taylor_ops.audit.timing import timed_compiled
from taylor_ops.config.audit import Audit
from taylor_ops.config.latency import Latency
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import WorkFailed
from taylor_ops.exactness.generation import continue_greedily
from taylor_ops.latency import timing as timing_room
from taylor_ops.machine import devices
from taylor_ops.model import loading
from taylor_ops.texts.prompts import Prompt
from tests.support.clocks import of_each, restless
from tests.taylor_ops.conftest import CPU, Sample, sample, silent

TAYLOR, DENSE, COMPILED = 4.0, 1.0, 0.5
SETTINGS = Audit(attacks=("collapse",), prompts=6, new_tokens=8)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the clock: a bundle takes four times as long as a dense model, a compiled one half as long."""

    def decode_seconds(model: Any, _behind: timing_room.Behind, new_tokens: int) -> float:
        plain = TAYLOR if type(model).__name__.startswith("Taylor") else DENSE
        return new_tokens * plain * (COMPILED if getattr(model, "is_compiled_here", False) else 1)

    monkeypatch.setattr(timing_room, "decode_seconds", of_each(decode_seconds))


def conditions(folder: Path, **changes: Any) -> Conditions:
    sizes = Latency(prompt_tokens=4, new_tokens=4, **changes)
    return Conditions((TextSource(name="project", builtin="held_out"),), sizes, CPU, 0, folder / "audit")


def collapsed(sample: Sample, folder: Path, **changes: Any) -> AttackResult:
    return audit(sample.original, sample.converted, SETTINGS, silent, conditions(folder, **changes)).attacks[0]


def test_a_rebuilt_model_says_what_the_original_says_and_is_as_fast(gated_or_plain: Sample, tmp_path: Path) -> None:
    rebuilt = collapsed(gated_or_plain, tmp_path).rebuilt
    assert rebuilt is not None
    assert (rebuilt.prompts, rebuilt.prompts_equal, rebuilt.tokens_compared) == (6, 6, 48)
    assert rebuilt.kl_max < 1e-8
    assert rebuilt.top1_agreement == 1
    assert rebuilt.residual is not None
    assert (rebuilt.residual.slowdown, rebuilt.residual.settled) == (1.0, True)
    assert len(rebuilt.residual.seconds_other) == 7
    assert list(tmp_path.iterdir()) == []


def test_a_rebuilt_model_with_weights_that_are_wrong_says_other_tokens(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ProtectedLayer.tensor

    def halved(layer: ProtectedLayer, name: str) -> torch.Tensor:
        return whole(layer, name) * (0.5 if name == "carrier" else 1)

    monkeypatch.setattr(ProtectedLayer, "tensor", halved)
    rebuilt = collapsed(llama, tmp_path).rebuilt
    assert rebuilt is not None
    assert rebuilt.prompts_equal < 6
    assert rebuilt.kl_mean > 1e-3


def continuations_by(original: Path, new_tokens: int) -> dict[tuple[int, ...], tuple[int, ...]]:
    """What an original says after its held-out prompts."""
    model, asked = loading.load_original(original, "float32", CPU), held_out(original, conditions(original).sources, 6)
    known_texts = continue_greedily(model, asked, new_tokens, 6, loading.load_tokenizer(original).pad_token_id)
    return {one.prompt.tokens: tuple(one.tokens.tolist()) for one in known_texts}


@pytest.mark.parametrize(("known", "decoded"), [(8, 0), (12, 0), (7, 6)], ids=["all", "longer", "too short"])
def test_what_an_earlier_stage_heard_of_the_original_is_not_decoded_again(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int, decoded: int
) -> None:
    asked: list[Prompt] = []

    def watched(model: Any, batch: list[Prompt], *more: Any) -> Any:
        asked.extend(batch)
        return continue_greedily(model, batch, *more)

    monkeypatch.setattr(rebuilt_room, "continue_greedily", watched)
    given = dataclasses.replace(conditions(tmp_path), continuations=continuations_by(llama.original, known))
    again = audit(llama.original, llama.converted, SETTINGS, silent, given).attacks[0].rebuilt
    assert len(asked) == decoded
    anew = collapsed(llama, tmp_path).rebuilt
    assert again is not None
    assert anew is not None
    same = {"prompts", "prompts_equal", "tokens_compared", "top1_agreement"}
    assert again.model_dump(include=same) == anew.model_dump(include=same)
    assert again.kl_max < 1e-8


def test_tokens_that_the_original_is_said_to_say_are_compared_as_they_are(llama: Sample, tmp_path: Path) -> None:
    known_texts = continuations_by(llama.original, 8)
    first = next(iter(known_texts))
    known_texts[first] = (*known_texts[first][:5], (known_texts[first][5] + 1) % 256, *known_texts[first][6:])
    given = dataclasses.replace(conditions(tmp_path), continuations=known_texts)
    found = audit(llama.original, llama.converted, SETTINGS, silent, given).attacks[0].rebuilt
    assert found is not None
    assert (found.prompts_equal, found.tokens_compared) == (5, 46)


def test_one_pass_along_a_text_gives_what_decoding_gives_up_to_the_first_other_token(llama: Sample) -> None:
    original, bundle = (
        load(place)
        for load, place in (
            (lambda place: loading.load_original(place, "float32", CPU), llama.original),
            (lambda place: loading.load_bundle(place, CPU), llama.converted),
        )
    )
    # A model that says other things after a while.
    bundle.model.layers[0].mlp.terms.weight.data.mul_(1.02)
    asked = held_out(llama.original, conditions(llama.original).sources, 6)
    pad = loading.load_tokenizer(llama.original).pad_token_id
    own = list(continue_greedily(original, asked, 24, 6, pad))
    decoded = {one.prompt.id: one for one in continue_greedily(bundle, asked, 24, 6, pad)}
    diverged = 0
    for text, along in zip(own, continued_along(bundle, own, pad), strict=True):
        other = decoded[text.prompt.id]
        differs = (text.tokens != other.tokens).nonzero().flatten().tolist()
        shared = differs[0] + 1 if differs else 24
        diverged += bool(differs)
        assert torch.equal(along.tokens[:shared], other.tokens[:shared])
        assert torch.allclose(along.logits[:shared], other.logits[:shared], atol=1e-4)
    assert diverged > 0


def test_a_rebuilt_model_tells_its_progress_to_the_end(llama: Sample, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    audit(llama.original, llama.converted, SETTINGS, lambda *step: told.append(step), conditions(tmp_path))
    assert told == sorted(told)
    assert {total for _, total in told} == {2 * (1 + 3)}
    # The layers, the files, the tokens, and the first of the pairs of which few are needed.
    assert {done for done, _ in told} >= {1, 2, 3, 4, 6}


def test_a_rebuilt_model_is_made_of_the_bundle_alone(llama: Sample, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.symlink_to(llama.converted)
    target = Target(bundle, tmp_path / "rebuilt")
    folder = target.rebuild(lambda layer: torch.zeros(layer.theta.shape[0], layer.protected))
    assert type(loading.load_original(folder, "float32", CPU)).__name__ == "LlamaForCausalLM"


def test_an_attack_that_is_not_to_be_rebuilt_is_not(llama: Sample, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"rebuild": ()})
    record = audit(llama.original, llama.converted, settings, silent, conditions(tmp_path))
    assert record.attacks[0].rebuilt is None
    assert record.compiled is None


@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
def test_what_memory_does_not_hold_is_compared_but_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    made, work = sample(tmp_path, model_type), tmp_path / "work"
    monkeypatch.setattr(devices, "free_memory", lambda _device: int(1.5 * made.record.original_bytes / devices._ROOM))
    rebuilt = collapsed(made, work).rebuilt
    assert rebuilt is not None
    assert rebuilt.prompts_equal == 6
    assert rebuilt.residual is None
    assert timed_compiled(made.original, made.converted, conditions(work)) is None
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(("seconds", "pairs"), [(0.01, 33), (1.0, 7)])
def test_a_noisy_machine_is_told_by_the_record_and_neither_ends_nor_delays_a_release(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, pairs: int
) -> None:
    ratios = restless(2.0, 0.6)
    monkeypatch.setattr(timing_room, "decode_seconds", lambda *_decoding: [seconds, seconds * next(ratios)])
    rebuilt = collapsed(llama, tmp_path).rebuilt
    assert rebuilt is not None
    assert rebuilt.residual is not None
    assert not rebuilt.residual.settled
    assert len(rebuilt.residual.seconds_other) == pairs
    assert rebuilt.residual.ci95[0] < 2 < rebuilt.residual.ci95[1]


def test_what_a_training_found_is_what_is_rebuilt(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_start", lambda layer, _dense, _generator: collapse.recover(layer, SETTINGS).weights)
    monkeypatch.setitem(TRAININGS, "lora", dataclasses.replace(TRAININGS["lora"], rate=0.0))
    changes = {"attacks": ("lora",), "rebuild": ("lora",), "tuning_steps": 1}
    found = audit(
        llama.original, llama.converted, SETTINGS.model_copy(update=changes), silent, conditions(tmp_path)
    ).attacks[0]
    assert found.rebuilt is not None
    assert found.rebuilt.prompts_equal == 6
    assert list(tmp_path.iterdir()) == []


def stands_in_for_compiling(model: Any) -> Any:
    model.is_compiled_here = True
    return model


def test_what_compiling_leaves_is_measured_where_the_config_asks_for_it(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "compiled", stands_in_for_compiling)
    settings = SETTINGS.model_copy(update={"rebuild": ()})
    record = audit(llama.original, llama.converted, settings, silent, conditions(tmp_path, compiled=True))
    assert record.compiled is not None
    assert record.compiled.alone.slowdown == TAYLOR * COMPILED
    assert record.compiled.both.slowdown == TAYLOR


def test_what_compiling_leaves_is_measured_also_where_no_attack_is_run(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "compiled", stands_in_for_compiling)
    settings = Audit(attacks=())
    record = audit(llama.original, llama.converted, settings, silent, conditions(tmp_path, compiled=True))
    assert record.skipped
    assert record.compiled is not None
    assert record.compiled.alone.slowdown == TAYLOR * COMPILED
    assert audit(llama.original, llama.converted, settings, silent, conditions(tmp_path)).compiled is None


def test_a_machine_that_cannot_compile_ends_with_what_to_do(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_model: Any) -> Any:
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)

    monkeypatch.setattr(timing, "compiled", fails)
    with pytest.raises(WorkFailed, match=r"`torch\.compile` does not work here: .*no C\+\+ compiler") as caught:
        timed_compiled(llama.original, llama.converted, conditions(tmp_path))
    assert "leave `latency.compiled` out" in caught.value.remedy
