"""Part of a model in place of all: cut where its types of layers repeat, and not at all where layers share tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.latency.candidates import layers_that_fit
from taylor_ops.model.original import Original
from taylor_ops.preflight import probe
from taylor_ops.preflight.preflight import preflight
from taylor_ops.series.plan import Plan
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import silent

LINEAR = ["linear_attention"] * 3 + ["full_attention"]
SLIDING = ["sliding_attention", "full_attention"]
QWEN = ("qwen3_5_text", {"num_hidden_layers": 8, "layer_types": LINEAR * 2})
GEMMA = ("gemma4_text", {"num_hidden_layers": 6, "layer_types": SLIDING * 3, "hidden_size_per_layer_input": 0})
PER_LAYER = ("gemma4_text", {"num_hidden_layers": 6, "layer_types": SLIDING * 3})
EVERY_SECOND = ("qwen3_moe", {"num_hidden_layers": 6, "mlp_only_layers": [], "decoder_sparse_step": 2})
FIRST_DENSE = ("qwen3_moe", {"num_hidden_layers": 4, "mlp_only_layers": [0]})
SHARED = ("gemma4_text", {"num_hidden_layers": 6, "layer_types": SLIDING * 3, "num_kv_shared_layers": 2})


def saved(folder: Path, model_type: str, changes: dict[str, Any]) -> Original:
    return Original(save_tiny_model(folder / "original", model_type, **changes))


@pytest.mark.parametrize(
    ("types", "period"),
    [
        (SLIDING * 4, 2),
        (LINEAR * 2, 4),
        # The last layers of Gemma 3 begin a period that they do not end.
        ((["sliding_attention"] * 2 + ["full_attention"]) * 2 + ["sliding_attention"] * 2, 3),
        (["full_attention"] * 8, 1),
        # Nothing that repeats, or not in its share: no part stands for all.
        (["sliding_attention"] * 7 + ["full_attention"], 8),
        (["sliding_attention"] * 4 + ["full_attention"] * 4, 8),
        (["full_attention"] * 3 + ["sliding_attention"] * 5, 8),
    ],
)
def test_a_period_is_the_shortest_start_that_the_other_layers_repeat(
    tmp_path: Path, types: list[str], period: int
) -> None:
    model_type = "qwen3_5_text" if "linear_attention" in types else "gemma3_text"
    assert saved(tmp_path, model_type, {"num_hidden_layers": 8, "layer_types": types}).period == period


@pytest.mark.parametrize(
    ("model", "period"),
    [(GEMMA, 2), (PER_LAYER, 6), (SHARED, 6), (("llama", {}), 1), (EVERY_SECOND, 2), (FIRST_DENSE, 4)],
)
def test_models_whose_layers_share_tensors_or_do_not_repeat_have_no_part(
    tmp_path: Path, model: tuple[str, dict[str, Any]], period: int
) -> None:
    assert saved(tmp_path, *model).period == period


@pytest.mark.usefixtures("clock_of_bytes")
@pytest.mark.parametrize(("model", "layers"), [(QWEN, 4), (GEMMA, 4), (PER_LAYER, 6), (SHARED, 6)])
def test_a_large_model_is_probed_on_layers_that_stand_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: tuple[str, dict[str, Any]], layers: int
) -> None:
    monkeypatch.setattr(probe, "_SMALL_BYTES", 0)
    monkeypatch.setattr(probe, "_TOKENS", 256)
    original = saved(tmp_path, *model)
    document = {
        "name": "tiny",
        "version": "1.0.0",
        "source": {"kind": "folder", "path": str(original.folder)},
        "conversion": {"tolerance": 1e-2},
        "latency": {"target_slowdown": 1.5, "prompt_tokens": 4, "min_seconds": 0},
        "card": {"license": "mit"},
        "publish": {"repo_id": "org/tiny"},
        "device": "cpu",
    }
    # What the machine makes of so small a model decides nothing here: only that all of it ran.
    monkeypatch.setattr("taylor_ops.preflight.preflight._unreachable", lambda *_given, **_named: None)
    sample = preflight(ReleaseConfig.model_validate(document), tmp_path / "artifacts", silent).sample
    assert sample is not None
    assert (sample.layers, sample.layers_timed) == (layers, layers)


def plan_of(original: Original) -> Plan:
    neurons = 48 * len(original.mlps)
    return Plan(basis="chebyshev", tolerance=1e-2, least_order=1, columns=8 * neurons, neurons=neurons)


def memory_for(original: Original, layers: float) -> int:
    """Bytes for a number of layers of original and candidate, and for all that is outside of them."""
    inside, every = original.layer_bytes(torch.float32), int(original.config.num_hidden_layers)
    both = 2 * inside + 4 * int(original.config.hidden_size) * plan_of(original).columns
    return int(2 * (original.bytes(torch.float32) - inside) + layers * both / every)


@pytest.mark.parametrize(
    ("model", "room", "fit"),
    [(QWEN, 7.5, 4), (QWEN, 8.1, 8), (QWEN, 3.5, None), (PER_LAYER, 5.5, None), (PER_LAYER, 6.1, 6)],
)
def test_only_layers_that_stand_for_all_are_timed_or_none(
    tmp_path: Path, model: tuple[str, dict[str, Any]], room: float, fit: int | None
) -> None:
    original = saved(tmp_path, *model)
    memory = memory_for(original, room)
    if fit is None:
        with pytest.raises(BadInput, match=rf"{original.period} decoder layers, which cannot be timed apart") as caught:
            layers_that_fit(original, plan_of(original), torch.float32, memory)
        assert "more memory" in caught.value.remedy
    else:
        assert layers_that_fit(original, plan_of(original), torch.float32, memory) == fit
