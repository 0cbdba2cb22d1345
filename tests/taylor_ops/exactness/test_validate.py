"""Exactness: what counts as equal, what as a tie, and that a bundle that is wrong is rejected end to end."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import GateRejected
from taylor_ops.exactness import validate as exactness
from taylor_ops.exactness.gate import require_exact
from taylor_ops.exactness.generation import Continuation
from taylor_ops.exactness.layers import require_within_bounds
from taylor_ops.exactness.record import Comparison, ExactnessRecord
from taylor_ops.exactness.tally import Tally
from taylor_ops.exactness.validate import validate
from taylor_ops.texts.prompts import Prompt
from tests.taylor_ops.conftest import CPU, Sample, silent

TIE_MARGIN = 1e-3
VOCABULARY = 5


# Counting


def said(tokens: list[int], logits: Tensor | None = None, prompt: str = "p1") -> Continuation:
    """A continuation by greedy choice, with clear logits for its tokens unless others are given."""
    chosen = torch.tensor(tokens)
    if logits is None:
        logits = 4.0 * torch.nn.functional.one_hot(chosen, VOCABULARY).float()
    return Continuation(Prompt(prompt, "kind", (1, 2)), chosen, logits)


def compared(*runs: tuple[Continuation, Continuation]) -> Comparison:
    tally = Tally()
    for original, other in runs:
        tally.add(original, other)
    return tally.comparison(TIE_MARGIN)


def test_equal_runs_have_no_distance() -> None:
    result = compared((said([1, 2, 3]), said([1, 2, 3])), (said([4, 0, 4], prompt="p2"), said([4, 0, 4], prompt="p2")))
    assert (result.prompts, result.prompts_equal, result.tokens_compared) == (2, 2, 6)
    assert (result.first_divergence, result.divergences) == (None, ())
    assert result.kl_mean == result.kl_max == result.log_prob_difference_max == 0
    assert result.top1_agreement == 1


def test_runs_are_compared_up_to_and_with_their_first_divergence() -> None:
    original, other = said([1, 2, 3, 4]), said([1, 2, 0, 0])
    result = compared((original, other))
    assert result.tokens_compared == 3
    assert result.first_divergence == 2
    assert result.prompts_equal == 0
    assert result.top1_agreement == pytest.approx(2 / 3)
    (divergence,) = result.divergences
    assert (divergence.prompt, divergence.position) == ("p1", 2)
    assert divergence.margin == pytest.approx(4.0, rel=1e-6)
    assert not divergence.tie


def test_the_first_divergence_of_a_data_set_is_the_earliest_of_its_prompts() -> None:
    result = compared(
        (said([1, 1, 1, 1]), said([1, 1, 1, 2])),
        (said([1, 1, 1, 1], prompt="p2"), said([1, 2, 1, 1], prompt="p2")),
        (said([1, 1, 1, 1], prompt="p3"), said([1, 1, 1, 1], prompt="p3")),
    )
    assert result.first_divergence == 1
    assert [divergence.prompt for divergence in result.divergences] == ["p1", "p2"]
    assert result.tokens_compared == 4 + 2 + 4


@given(seed=st.integers(0, 10_000), scale=st.floats(0, 3), steps=st.integers(1, 6))
def test_distances_are_those_of_the_definitions(seed: int, scale: float, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(steps, VOCABULARY, generator=generator)
    second = first + scale * torch.randn(steps, VOCABULARY, generator=generator)
    result = compared((said(first.argmax(-1).tolist(), first), said(second.argmax(-1).tolist(), second)))
    kl, difference = [], []
    for p, q in zip(first.double().softmax(-1).tolist(), second.double().softmax(-1).tolist(), strict=True):
        kl.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        difference.append(max(abs(math.log(a / b)) for a, b in zip(p, q, strict=True)))
        if p.index(max(p)) != q.index(max(q)):
            break
    assert result.tokens_compared == len(kl)
    assert result.kl_mean == pytest.approx(sum(kl) / len(kl), abs=1e-12)
    assert result.kl_max == pytest.approx(max(kl), abs=1e-12)
    assert result.log_prob_difference_max == pytest.approx(max(difference), abs=1e-12)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_a_value_that_is_not_finite_is_never_forgotten(broken: float, position: int) -> None:
    original, bad = said([1, 2, 3]), said([1, 2, 3])
    bad.logits[position, 0] = broken
    for runs in ([(original, bad), (original, original)], [(original, original), (original, bad)]):
        result = compared(*runs)
        assert not math.isfinite(result.kl_max)
        assert not math.isfinite(result.log_prob_difference_max)


def test_a_divergence_is_a_tie_up_to_the_margin_and_not_beyond() -> None:
    for gap, tie in ((0.0, True), (0.9e-3, True), (1.1e-3, False), (1.0, False)):
        first = torch.tensor([[0.0, 5.0, 5.0 - gap, 0.0, 0.0]], dtype=torch.float64)
        second = torch.tensor([[0.0, 5.0 - gap, 5.0, 0.0, 0.0]], dtype=torch.float64)
        (divergence,) = compared((said([1], first), said([2], second))).divergences
        assert divergence.margin == pytest.approx(gap, abs=1e-9)
        assert divergence.tie is tie


def test_another_token_than_the_tied_two_is_no_tie() -> None:
    first = torch.tensor([[0.0, 5.0, 5.0, -9.0, 0.0]])
    second = torch.tensor([[0.0, 5.0, 5.0, 30.0, 0.0]])
    (divergence,) = compared((said([1], first), said([3], second))).divergences
    assert not divergence.tie


def test_a_token_that_may_not_be_said_makes_no_tie() -> None:
    # Token 0 ends the text. It is suppressed, so the original's choice is token 1, four nats before token 2.
    first = torch.tensor([[5.0001, 5.0, 1.0, 0.0, 0.0]])
    second = torch.tensor([[5.0, 1.0, 5.0, 0.0, 0.0]])
    (divergence,) = compared((said([1], first), said([2], second))).divergences
    assert not divergence.tie


def test_a_suppressed_token_does_not_hide_a_tie() -> None:
    first = torch.tensor([[9.0, 5.0, 5.0 - 1e-4, 0.0, 0.0]])
    second = torch.tensor([[9.0, 5.0 - 1e-4, 5.0, 0.0, 0.0]])
    (divergence,) = compared((said([1], first), said([2], second))).divergences
    assert divergence.tie


# End to end


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Exactness:
    """A few short prompts and a little running text."""
    folder = tmp_path_factory.mktemp("prompts")
    lines = [
        "Why is bread brown?",
        "2 + 2 =",
        "def f(x):",
        "Once upon a time there was a",
        "A",
        "The opposite of up is",
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))
    return Exactness(
        prompts=(
            TextSource(name="short", file=folder / "prompts.jsonl"),
            TextSource(name="two", file=folder / "prompts.jsonl", limit=2),
        ),
        running_text=(TextSource(name="running", builtin="running_text"),),
        running_tokens=128,
        new_tokens=8,
        batch_size=4,
        floor_batch_size=1,
    )


def validated(
    sample: Sample, prompts: Exactness, bundle: Path | None = None, progress: Callable[[int, int], None] = silent
) -> ExactnessRecord:
    """The exactness of a sample's converted model, or of another one in its place."""
    folder = bundle or sample.converted
    return validate(sample.subject, folder, prompts, CPU, progress)


def test_a_converted_model_is_exact_on_held_out_prompts(gated_or_plain: Sample, prompts: Exactness) -> None:
    told = []
    found = validated(gated_or_plain, prompts, progress=lambda *step: told.append(step))
    require_exact(found)
    assert [data_set.name for data_set in found.data_sets] == ["short", "two"]
    assert [data_set.bundle.prompts_equal for data_set in found.data_sets] == [6, 2]
    assert [data_set.floor.prompts for data_set in found.data_sets] == [6, 2]
    for data_set in found.data_sets:
        assert data_set.bundle.tokens_compared == 8 * data_set.bundle.prompts
        assert data_set.bundle.top1_agreement == 1
        assert 0 < data_set.bundle.kl_max < 1e-6
        assert 0 < data_set.bundle.log_prob_difference_max < 1e-3
    noise = max(data_set.floor.log_prob_difference_max for data_set in found.data_sets)
    assert found.tie_margin == 2 * noise > 0
    (perplexity,) = found.perplexity
    assert perplexity.tokens == 127
    assert perplexity.bundle == pytest.approx(perplexity.original, rel=1e-3)
    assert len(found.continuations) == 4
    assert all(len(continuation.new_tokens) == 8 for continuation in found.continuations)
    assert told[-1] == (3 * 8 + 2, 3 * 8 + 2)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_floor_is_the_original_in_one_pass_in_smaller_batches_and_with_plain_attention(
    llama: Sample, prompts: Exactness, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[str, str, int]] = []
    usual = exactness.continued_along

    def watched(model: Any, texts: Sequence[Continuation], pad: int) -> list[Continuation]:
        passes.append((model.config.model_type, model.config._attn_implementation, len(texts)))
        return usual(model, texts, pad)

    monkeypatch.setattr(exactness, "continued_along", watched)
    validated(llama, prompts)
    assert {run for run in passes if run[0] == "llama"} == {("llama", "eager", 1)}
    assert {run for run in passes if run[0] == "taylor_llama"} == {("taylor_llama", "sdpa", 1)}


def test_every_text_runs_once_through_each_model_and_one_of_a_kind_is_decoded(
    llama: Sample, prompts: Exactness, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, str, str]] = []
    along, greedily = exactness.continued_along, exactness.continue_greedily
    steps_of_the_bundle = exactness.decoded_along

    def in_one_pass(model: Any, texts: Sequence[Continuation], pad: int) -> list[Continuation]:
        runs.extend((model.config.model_type, "along", text.prompt.id) for text in texts)
        return along(model, texts, pad)

    def decoded(model: Any, batch: Sequence[Prompt], new_tokens: int, size: int, pad: int) -> Iterator[Continuation]:
        runs.extend((model.config.model_type, "decodes", prompt.id) for prompt in batch)
        return greedily(model, batch, new_tokens, size, pad)

    def both(model: Any, text: Continuation, steps: int, pad: int) -> Continuation:
        runs.append((model.config.model_type, "decodes", text.prompt.id))
        return steps_of_the_bundle(model, text, steps, pad)

    monkeypatch.setattr(exactness, "continued_along", in_one_pass)
    monkeypatch.setattr(exactness, "continue_greedily", decoded)
    monkeypatch.setattr(exactness, "decoded_along", both)
    validated(llama, prompts.model_copy(update={"prompts": prompts.prompts[:1]}))
    shortest = "5"
    expected = {("llama", way, str(line)) for way in ("decodes", "along") for line in range(1, 7)}
    expected |= {("taylor_llama", "along", str(line)) for line in range(1, 7)}
    expected = (expected - {("taylor_llama", "along", shortest)}) | {("taylor_llama", "decodes", shortest)}
    assert sorted(runs) == sorted(expected)


def test_a_bundle_that_is_wrong_about_single_tokens_alone_is_rejected(
    llama: Sample, prompts: Exactness, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = exactness.load_both

    def wrong(*arguments: Any) -> tuple[Any, Any]:
        original, bundle = usual(*arguments)
        bundle.model.layers[1].mlp.register_forward_hook(
            lambda _mlp, given, output: -output if given[0].shape[:-1].numel() == 1 else output
        )
        return original, bundle

    monkeypatch.setattr(exactness, "load_both", wrong)
    found = validated(llama, prompts)
    with pytest.raises(GateRejected, match="differs at new token"):
        require_exact(found)
    with pytest.raises(GateRejected, match=r"model\.layers\.1\.mlp: its output is wrong"):
        require_within_bounds(found.layers, llama.record.layers)


def test_two_validations_give_the_same_record(llama: Sample, prompts: Exactness) -> None:
    once, twice = (validated(llama, prompts) for _ in range(2))
    assert once == twice


@pytest.mark.parametrize("layer", [0, 1])
def test_a_bundle_with_one_flipped_sign_is_rejected(
    llama: Sample, prompts: Exactness, tmp_path: Path, layer: int
) -> None:
    flipped = tmp_path / f"llama-flipped-{layer}"
    shutil.copytree(llama.converted, flipped)
    (file,) = flipped.glob("*.safetensors")
    tensors = load_file(file)
    tensors[f"model.layers.{layer}.mlp.terms.weight"] *= -1
    save_file(tensors, file, metadata={"format": "pt"})
    found = validated(llama, prompts, flipped)
    with pytest.raises(GateRejected, match="no numerical tie"):
        require_exact(found)
    assert not found.continuations
    assert found.perplexity[0].bundle != pytest.approx(found.perplexity[0].original, rel=1e-2)


def test_a_bundle_that_computes_nan_is_rejected_end_to_end(llama: Sample, prompts: Exactness, tmp_path: Path) -> None:
    broken = tmp_path / "llama-broken"
    shutil.copytree(llama.converted, broken)
    (file,) = broken.glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(GateRejected, match="not finite"):
        require_exact(validated(llama, prompts, broken))
