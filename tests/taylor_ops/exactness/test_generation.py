"""Greedy continuations, step by step and along a given text: both say the same, whatever a generation config asks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from taylor_ops.exactness.generation import (
    batches,
    continue_greedily,
    continued_along,
    decoded_along,
    padding_token,
)
from taylor_ops.model.loading import load_original
from taylor_ops.texts.prompts import Prompt
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import CPU, Sample

FAMILIES = ["llama", "gpt2", "opt", "gemma2", "falcon", "mixtral", "qwen3_5_text"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 4, 6, 9])
def test_a_text_that_is_decoded_in_part_says_what_decoding_it_says(family: str, steps: int, tmp_path: Path) -> None:
    model = load_original(save_tiny_model(tmp_path, family), "float32", CPU)
    (text,) = continue_greedily(model, [Prompt("p", "kind", tuple(range(40, 47)))], 6, 1, 0)
    lengths: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _model, _given, named: lengths.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    again = decoded_along(model, text, steps, 0)
    handle.remove()
    assert lengths == [7, *[1] * (min(steps, 6) - 1), *([6 - steps] if steps < 6 else [])]
    assert torch.equal(text.tokens, again.tokens)
    assert torch.allclose(text.logits, again.logits, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_along_a_text_says_what_decoding_it_says(family: str, tmp_path: Path) -> None:
    model = load_original(save_tiny_model(tmp_path, family), "float32", CPU)
    asked = [Prompt(f"p{length}", "kind", tuple(range(40, 40 + length))) for length in (1, 5, 9)]
    texts = list(continue_greedily(model, asked, 6, 3, 0))
    for text, again in zip(texts, continued_along(model, texts, 0), strict=True):
        assert text.prompt == again.prompt
        assert torch.equal(text.tokens, again.tokens)
        assert torch.allclose(text.logits, again.logits, atol=1e-4)


def test_a_generation_config_with_penalties_changes_no_token(llama: Sample) -> None:
    model = load_original(llama.original, "float32", CPU)
    asked = [Prompt("p", "kind", (40, 41, 42))]
    (plain,) = continue_greedily(model, asked, 8, 1, 0)
    penalties = GenerationConfig(repetition_penalty=5.0, suppress_tokens=plain.tokens.tolist(), do_sample=True)
    penalties.eos_token_id = model.generation_config.eos_token_id
    model.generation_config = penalties
    (again,) = continue_greedily(model, asked, 8, 1, 0)
    assert torch.equal(plain.tokens, again.tokens)
    assert model.generation_config is penalties


def test_a_token_that_ends_the_text_is_suppressed_both_ways(llama: Sample) -> None:
    model = load_original(llama.original, "float32", CPU)
    asked = [Prompt("p", "kind", (40, 41, 42))]
    (free,) = continue_greedily(model, asked, 8, 1, 0)
    model.generation_config.eos_token_id = [int(free.tokens[0]), int(free.tokens[3])]
    (text,) = continue_greedily(model, asked, 8, 1, 0)
    (again,) = continued_along(model, [text], 0)
    assert not set(model.generation_config.eos_token_id) & set(text.tokens.tolist())
    assert torch.equal(text.tokens, again.tokens)


def test_a_prompt_that_is_much_longer_than_the_others_has_its_own_batch() -> None:
    asked = [Prompt(str(length), "kind", (1,) * length) for length in (600, 10, 20, 21, 15, 2000, 1900, 40)]
    lengths = [[len(prompt.tokens) for prompt in batch] for batch in batches(asked, 3)]
    assert lengths == [[10, 15, 20], [21, 40], [600], [1900, 2000]]


@pytest.mark.parametrize(("token", "pads"), [(None, 0), (7, 7), (260, 0), (-1, 0)])
def test_a_model_is_padded_with_a_token_that_its_embedding_has(llama: Sample, token: int | None, pads: int) -> None:
    model = load_original(llama.original, "float32", CPU)
    assert model.get_input_embeddings().weight.shape[0] == 260
    assert padding_token(SimpleNamespace(pad_token_id=token), model) == pads
    asked = [Prompt("a", "kind", (40, 41, 42)), Prompt("b", "kind", (50, 51, 52, 53, 54))]
    padded = [text.tokens for text in continue_greedily(model, asked, 6, 2, pads)]
    alone = [text.tokens for prompt in asked for text in continue_greedily(model, [prompt], 6, 1, pads)]
    assert all(torch.equal(one, other) for one, other in zip(padded, alone, strict=True))
