"""Every architecture: found, converted, loaded by a consumer in a clean process, and equal to the original."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.config.source import FolderSource
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.errors import BadInput
from taylor_ops.exactness.layers import layer_errors, require_within_bounds
from taylor_ops.model.architectures import ARCHITECTURES, architecture_of, mlps_of
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.model.original import Original
from taylor_ops.series.ranges import read_ranges
from taylor_ops.source.resolve import resolve
from taylor_ops.verification.clean_process import link_packages
from tests.support import consumer_of_all
from tests.support.tiny_models import save_tiny_model
from tests.support.whole_model import ranges_of_whole_model
from tests.taylor_ops.conftest import CALIBRATION, CPU, captured, converted, silent

NEW_TOKENS = 8
CONVERSION = Conversion(tolerance=1e-4)
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in sorted(ARCHITECTURES)} | {
    "gemma2, soft-capped": ("gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0}),
    "gemma4_text, with experts": (
        "gemma4_text",
        {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24},
    ),
    "gpt_neox, sequential, relu2": ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "relu2"}),
    "llama, biases and tied embeddings": ("llama", {"mlp_bias": True, "tie_word_embeddings": True}),
    "mistral, sliding window": ("mistral", {"sliding_window": 8}),
    "falcon, sequential": ("falcon", {"parallel_attn": False, "bias": True}),
    "opt, gelu": ("opt", {"activation_function": "gelu"}),
}


@dataclass(frozen=True)
class Released:
    """One tiny model and what its bundle said in the clean process."""

    original: Path
    ranges: Path
    record: ConvertedModel
    said: dict[str, Tensor]


def tokens(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(32, 127, (rows, length), generator=torch.Generator().manual_seed(seed))


PROMPTS, IDS = tokens(32, 20, seed=1), tokens(4, 48, seed=2)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Released]:
    """Every case, released; one clean process then loads all bundles."""
    root = tmp_path_factory.mktemp("architectures")
    made: dict[str, Any] = {}
    for number, (case, (model_type, changes)) in enumerate(CASES.items()):
        folder = root / str(number)
        original = save_tiny_model(folder / "original", model_type, **changes)
        ranges = captured(original, folder / "ranges")
        made[case] = converted(original, ranges, CONVERSION, folder / "bundle")
    link_packages(root / "packages")
    request = {
        "packages": str(root / "packages"),
        "bundles": [str(sample.converted) for sample in made.values()],
        "prompts": PROMPTS.tolist(),
        "ids": IDS.tolist(),
        "new_tokens": NEW_TOKENS,
    }
    subprocess.run(
        [sys.executable, "-I", "-S", "-B", consumer_of_all.__file__],
        input=json.dumps(request),
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(root), "HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "1"},
    )
    said = {case: load_file(sample.converted.parent / "said.safetensors") for case, sample in made.items()}
    return {case: Released(one.original, one.ranges, one.record, said[case]) for case, one in made.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_says_what_the_original_says(released: dict[str, Released], case: str) -> None:
    one = released[case]
    model = load_original(one.original, "float32", CPU)
    with torch.inference_mode():
        greedy = model.generate(
            PROMPTS, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=258
        )
        exact = model(input_ids=IDS).logits.log_softmax(-1)
    assert torch.equal(one.said["greedy"], greedy[:, PROMPTS.shape[1] :])
    assert float((one.said["logits"].log_softmax(-1) - exact).abs().max()) < 5e-3
    assert torch.equal(one.said["again"], one.said["logits"])


@pytest.mark.parametrize("case", CASES)
def test_ranges_captured_layer_by_layer_are_those_of_the_whole_model(released: dict[str, Released], case: str) -> None:
    found = load_file(released[case].ranges)
    expected = ranges_of_whole_model(released[case].original, CALIBRATION)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("case", CASES)
def test_the_output_of_every_mlp_is_within_its_bound(released: dict[str, Released], case: str) -> None:
    one = released[case]
    original, bundle = load_original(one.original, "float32", CPU), load_bundle(one.original.parent / "bundle", CPU)
    ranges, mlps = read_ranges(one.ranges), Original(one.original).mlps
    errors = layer_errors(original, bundle, mlps, ranges, CONVERSION.range_margin, IDS.tolist())
    require_within_bounds(errors, one.record.layers)
    assert len(errors) == len(one.record.layers) == len(mlps)
    assert sum(error.tokens_inside for error in errors) > 0
    assert all(layer.bound <= CONVERSION.tolerance for layer in one.record.layers)


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_never_loads_as_the_plain_architecture_with_weights_missing(
    released: dict[str, Released], case: str
) -> None:
    plain = getattr(transformers, ARCHITECTURES[CASES[case][0]].causal_lm)
    with pytest.raises(RuntimeError, match="mismatched_sizes"):
        plain.from_pretrained(released[case].original.parent / "bundle")


@pytest.mark.parametrize("case", CASES)
def test_every_neuron_of_every_mlp_is_converted(released: dict[str, Released], case: str) -> None:
    one = released[case]
    original = Original(one.original)
    layers = original.config.num_hidden_layers
    counted = {
        "mixtral": layers * 4 * 48,
        "qwen3_moe": 48 + 4 * 24,
        "gemma4_text, with experts": layers * (48 + 4 * 24),
    }
    assert one.record.neurons_protected == counted.get(case, layers * 48)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_found_under_the_names_of_the_modules(released: dict[str, Released], case: str) -> None:
    """The tensors that are not MLP weights are those that transformers itself loads, name by name."""
    original = Original(released[case].original)
    loaded = load_original(released[case].original, "float32", CPU).state_dict()
    assert not original.unfit()
    for name in original.names():
        assert torch.equal(original.tensor(name), loaded[name]), name
    first = original.mlps[0]
    down = loaded[f"{first.module}.{first.kind.down}" + ("" if first.kind.experts else ".weight")]
    down = down[0] if first.kind.experts else down.T if first.kind.transposed else down
    assert torch.equal(original.weights(first).down, down)


def test_a_checkpoint_with_stacked_experts_is_read_as_one_with_each_expert_alone(tmp_path: Path) -> None:
    alone = Original(save_tiny_model(tmp_path / "alone", "qwen3_moe"))
    stacked_folder = tmp_path / "stacked"
    stacked_folder.mkdir()
    (stacked_folder / "config.json").write_bytes((tmp_path / "alone" / "config.json").read_bytes())
    state = load_original(tmp_path / "alone", "float32", CPU).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, stacked_folder / "model.safetensors")
    stacked = Original(stacked_folder)
    assert not stacked.unfit()
    for mlp in alone.mlps:
        ours, theirs = alone.weights(mlp), stacked.weights(mlp)
        assert ours.up is not None
        assert theirs.up is not None
        assert all(map(torch.equal, (ours.gate, ours.up, ours.down), (theirs.gate, theirs.up, theirs.down)))


# Recognised by structure


def resolved(folder: Path, recognise: bool) -> str:
    source = FolderSource(kind="folder", path=folder, recognise_architecture=recognise)
    return resolve(source, folder / "work", silent).model_type


def test_an_architecture_that_is_recognised_by_structure_is_released_when_the_config_says_so(tmp_path: Path) -> None:
    original = save_tiny_model(tmp_path / "original", "olmo3", attn_implementation="eager")
    assert "olmo3" not in ARCHITECTURES
    with pytest.raises(
        BadInput, match=r"`olmo3` is not known, but its MLPs at `model\.layers\.\{layer\}\.mlp` look like"
    ):
        resolved(original, recognise=False)
    assert resolved(original, recognise=True) == "olmo3"
    ranges = captured(original, tmp_path / "ranges")
    sample = converted(original, ranges, Conversion(tolerance=1e-3), tmp_path / "bundle")
    assert sample.record.neurons_protected == 96


def test_an_architecture_whose_mlps_look_like_no_known_one_is_refused_either_way(tmp_path: Path) -> None:
    original = save_tiny_model(tmp_path / "original", "bloom", n_layer=2, n_head=4)
    for recognise in (False, True):
        with pytest.raises(BadInput, match="architecture `bloom` is not known; known are cohere2, falcon"):
            resolved(original, recognise)


def test_layers_with_more_than_the_layers_of_an_mlp_are_not_taken_for_one() -> None:
    shapes = {
        "model.layers.0.mlp.gate_proj.weight": (8, 4),
        "model.layers.0.mlp.up_proj.weight": (8, 4),
        "model.layers.0.mlp.down_proj.weight": (4, 8),
        "model.layers.0.mlp.norm.weight": (8,),
    }

    class Config:
        model_type = "olmo3"
        hidden_act = "silu"

    with pytest.raises(BadInput, match="architecture `olmo3` is not known"):
        architecture_of(Config(), shapes)
    del shapes["model.layers.0.mlp.norm.weight"]
    found = architecture_of(Config(), shapes)
    assert [mlp.path for mlp in mlps_of(found, shapes)] == ["model.layers.0.mlp"]
