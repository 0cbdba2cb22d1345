"""Watching the MLPs of a model: every role of every token, padding left out, experts by what is routed to them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from taylor_ops.model.loading import load_original
from taylor_ops.model.mlp_hooks import Role, watched
from taylor_ops.model.original import Original
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import CPU

IDS = torch.randint(32, 127, (3, 12), generator=torch.Generator().manual_seed(0))
Seen = dict[tuple[str, str], list[Tensor]]


def seen_by(original: Path, shown_to_all: int = 0, **inputs: Any) -> tuple[Original, Seen]:
    """What is seen at each path and role in one forward pass."""
    source, seen = Original(original), defaultdict(list)
    model = load_original(original, "float32", CPU)

    def see(path: str, role: Role, values: Tensor) -> None:
        seen[path, role].append(values)

    with watched(model, source.mlps, see, shown_to_all), torch.inference_mode():
        model(use_cache=False, **inputs)
    model(input_ids=IDS)
    return source, seen


@pytest.mark.parametrize("model_type", ["llama", "phi", "gpt2", "phi3", "opt", "mixtral", "gemma4_text"])
def test_the_roles_fit_together(tmp_path: Path, model_type: str) -> None:
    source, seen = seen_by(save_tiny_model(tmp_path / "original", model_type), input_ids=IDS)
    for mlp in source.mlps:
        weights = source.weights(mlp)
        (inputs,), (z,), (output,) = (seen[mlp.path, role] for role in ("input", "pre_activation", "output"))
        expected = torch.nn.functional.linear(inputs, weights.gate, weights.gate_bias)
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
        hidden = source.activation.value(z.double())
        assert ((mlp.path, "factor") in seen) is (weights.up is not None)
        if weights.up is not None:
            hidden = hidden * seen[mlp.path, "factor"][0].double()
        bias = None if weights.down_bias is None else weights.down_bias.double()
        expected = torch.nn.functional.linear(hidden, weights.down.double(), bias)
        torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-4)


def test_padding_is_left_out(tmp_path: Path) -> None:
    original = save_tiny_model(tmp_path / "original", "mixtral")
    mask = torch.ones_like(IDS)
    mask[0, :5] = 0
    source, seen = seen_by(original, input_ids=IDS, attention_mask=mask)
    _, alone = seen_by(original, input_ids=IDS[1:])
    routed = sum(len(seen[mlp.path, "input"][0]) for mlp in source.mlps)
    tokens = int(mask.sum())
    assert routed == tokens * source.config.num_experts_per_tok * source.config.num_hidden_layers
    first = source.mlps[0].path
    rows = {tuple(row.tolist()) for row in seen[first, "input"][0].round(decimals=3)}
    assert rows >= {tuple(row.tolist()) for row in alone[first, "input"][0].round(decimals=3)}


def test_every_expert_is_shown_some_tokens_when_asked(tmp_path: Path) -> None:
    original = save_tiny_model(tmp_path / "original", "mixtral")
    source, seen = seen_by(original, shown_to_all=4, input_ids=IDS)
    _, routed = seen_by(original, input_ids=IDS)
    for mlp in source.mlps:
        shown, own = (len(found[mlp.path, "pre_activation"][0]) for found in (seen, routed))
        assert max(own, IDS.numel() // 4) <= shown <= own + IDS.numel() // 4


def test_nothing_is_watched_once_it_is_closed(tmp_path: Path) -> None:
    source, seen = seen_by(save_tiny_model(tmp_path / "original", "llama"), input_ids=IDS)
    assert {len(values) for values in seen.values()} == {1}
    assert len(seen) == 4 * len(source.mlps)
