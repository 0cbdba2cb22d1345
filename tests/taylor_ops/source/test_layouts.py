"""A source in any layout is read as plain transformers loads it, tensor by tensor, or is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from taylor_ops.config.source import FolderSource
from taylor_ops.errors import BadInput
from taylor_ops.model.weight_files import INDEX, ONE_FILE, inside, weight_files
from taylor_ops.source.resolve import readable, resolve, stamp
from taylor_ops.stages import RESOLVE
from tests.support.layouts import (
    GATE,
    HEAD,
    WORDS,
    Change,
    both,
    config,
    linked,
    listed_as,
    named,
    other_weights,
    sharded,
    stacked_one_by_one,
    tensors,
    without_model,
    write_index,
)
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import silent

FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "mixtral": ("mixtral", {}),
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind, which no test changes."""
    place = tmp_path_factory.mktemp("families")
    return {name: save_tiny_model(place / name, kind, **changes) for name, (kind, changes) in FAMILY.items()}


LOADED: dict[str, tuple[str, Change]] = {
    "one file": ("llama", lambda _folder: None),
    "shards with an index": ("llama", sharded),
    "index that names a subfolder": ("llama", listed_as("sub/model.safetensors")),
    "another file beside one": ("llama", other_weights("consolidated.safetensors")),
    "another file beside shards": ("llama", both(sharded, other_weights("consolidated.safetensors"))),
    "variant beside one file": ("llama", other_weights("model.fp16.safetensors")),
    "a name that sorts last": ("llama", other_weights("zz.safetensors")),
    "index beside one file": ("llama", lambda folder: write_index(folder, {WORDS: "not-there.safetensors"})),
    "no prefix, tied": ("tied", named(without_model)),
    "no prefix": ("llama", named(without_model)),
    "no prefix, gpt2": ("gpt2", named(lambda name: name.removeprefix("transformer."))),
    "no prefix, opt": ("opt", named(without_model)),
    "no prefix, neox": ("gpt_neox", named(lambda name: name.removeprefix("gpt_neox."))),
    "no prefix, experts": ("qwen3_moe", both(tensors(stacked_one_by_one), named(without_model))),
    "experts one by one": ("qwen3_moe", tensors(stacked_one_by_one)),
    "a tied copy that is equal": ("tied", tensors(lambda found: found.update({HEAD: found[WORDS].clone()}))),
    "only the tied copy": ("tied", tensors(lambda found: found.update({HEAD: found.pop(WORDS)}))),
    "rotary frequencies": (
        "llama",
        tensors(lambda found: found.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})),
    ),
    "the causal mask of gpt2": (
        "gpt2",
        tensors(lambda found: found.update({"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8).tril()})),
    ),
    "a value head": ("llama", tensors(lambda found: found.update({"v_head.summary.weight": torch.ones(1, 32)}))),
    "half precision": ("llama", tensors(lambda found: found.update({n: one.half() for n, one in found.items()}))),
    "a link inside the folder": ("llama", linked("sub/weights.safetensors")),
}


REFUSED: dict[str, tuple[str, Change, str]] = {
    "a variant alone": (
        "llama",
        lambda folder: (folder / ONE_FILE).rename(folder / "model.fp16.safetensors"),
        "holds model.fp16.safetensors, which transformers does not load",
    ),
    "two files without an index": (
        "llama",
        both(sharded, lambda folder: (folder / INDEX).unlink()),
        "holds model-00001-of-00002.safetensors, which transformers does not load",
    ),
    "an index that is a folder": (
        "llama",
        both(sharded, lambda folder: (folder / INDEX).unlink(), lambda folder: (folder / INDEX).mkdir()),
        "is a folder, not a file",
    ),
    "a stale index": (
        "llama",
        both(sharded, lambda folder: write_index(folder, {GATE: "model-00001-of-00002.safetensors", "x": "y.bin"})),
        "names 'y.bin', which is no safetensors file",
    ),
    "an index that places a tensor elsewhere": (
        "llama",
        both(listed_as("a.safetensors"), lambda folder: write_index(folder, {"gone": "a.safetensors"})),
        "tensor gone is not in",
    ),
    "an index that leaves the folder": (
        "llama",
        listed_as("../model.safetensors"),
        "names '../model.safetensors' as one of its files",
    ),
    "a tensor in two shards": (
        "llama",
        both(
            sharded,
            lambda folder: save_file(
                load_file(folder / "model-00001-of-00002.safetensors")
                | load_file(folder / "model-00002-of-00002.safetensors"),
                folder / "model-00002-of-00002.safetensors",
                {"format": "pt"},
            ),
        ),
        "is both in",
    ),
    "a link that leaves the folder": ("llama", linked("../elsewhere/weights.safetensors"), "is a link to"),
    "a tensor with and without the prefix": (
        "llama",
        tensors(lambda found: found.update({without_model(GATE): found[GATE] + 1})),
        "are both the same tensor of the model",
    ),
    "fewer layers than are stored": (
        "llama",
        config(num_hidden_layers=1),
        "the model does not use 9 tensors (model.layers.1.input_layernorm.weight, ",
    ),
    "a bias that the config does not name": (
        "llama",
        tensors(lambda found: found.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)})),
        "the model does not use tensor model.layers.0.self_attn.q_proj.bias",
    ),
    "an adapter that was not merged": (
        "llama",
        tensors(lambda found: found.update({GATE.replace("weight", "lora_A.weight"): torch.ones(2, 32)})),
        "the model does not use tensor model.layers.1.mlp.gate_proj.lora_A.weight",
    ),
    "an adapter": (
        "llama",
        lambda folder: (folder / "adapter_config.json").write_text("{}", encoding="utf-8"),
        "put an adapter into it",
    ),
    "a bias of the name of a mask": (
        "gpt2",
        tensors(lambda found: found.update({"transformer.h.0.attn.bias": torch.ones(32)})),
        "the model does not use tensor transformer.h.0.attn.bias",
    ),
    "a tied head of its own": (
        "llama",
        config(tie_word_embeddings=True),
        "config.json ties tensor lm_head.weight to model.embed_tokens.weight, but both are stored and differ",
    ),
    "whole numbers": (
        "llama",
        tensors(lambda found: found.update({GATE: found[GATE].to(torch.int8)})),
        f"tensor {GATE} does not hold floating-point numbers",
    ),
    "eight bits": (
        "llama",
        tensors(lambda found: found.update({GATE: found[GATE].to(torch.float8_e4m3fn)})),
        f"tensor {GATE} does not hold floating-point numbers",
    ),
    "another name for the weights": (
        "llama",
        both(config(transformers_weights="b.safetensors"), other_weights("b.safetensors")),
        "`transformers_weights` names another file",
    ),
    "experts of which some have the prefix": (
        "qwen3_moe",
        both(tensors(stacked_one_by_one), named(lambda name: without_model(name) if ".experts.2." in name else name)),
        "have different prefixes, and transformers would stack them in another order",
    ),
    "experts twice": (
        "qwen3_moe",
        tensors(lambda found: found.update({"model.layers.1.mlp.experts.down_proj": torch.ones(4, 32, 24)})),
        "the model does not use 4 tensors (model.layers.1.mlp.experts.0.down_proj.weight, ",
    ),
}


def source(folder: Path, *ignore: str) -> FolderSource:
    return FolderSource(kind="folder", path=folder, ignore=ignore)


@pytest.mark.parametrize("layout", LOADED)
def test_what_is_read_is_what_transformers_loads(families: dict[str, Path], tmp_path: Path, layout: str) -> None:
    family, change = LOADED[layout]
    folder = shutil.copytree(families[family], tmp_path / "model")
    change(folder)
    original, left_out = readable(folder, source(folder))
    theirs, found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["mismatched_keys"]
    assert left_out == ()
    loaded = theirs.state_dict()
    assert {*original.shapes, *original.stored_names.tied} == {*loaded}
    for name in original.shapes:
        assert torch.equal(original.tensor(name).float(), loaded[name]), name
    for copy, name in original.stored_names.tied.items():
        assert torch.equal(loaded[copy], loaded[name])


@pytest.mark.parametrize("layout", REFUSED)
def test_what_transformers_loads_otherwise_or_not_at_all_is_refused_by_name(
    families: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    family, change, cause = REFUSED[layout]
    folder = shutil.copytree(families[family], tmp_path / "model")
    change(folder)
    with pytest.raises(BadInput) as caught:
        readable(folder, source(folder))
    assert cause in caught.value.cause
    assert str(folder) in caught.value.cause
    assert len(str(caught.value).splitlines()) == 2


def test_an_absolute_path_in_an_index_is_refused(families: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(families["llama"], tmp_path / "model")
    listed_as(str(tmp_path / "other.safetensors"))(folder)
    with pytest.raises(BadInput, match="outside of the folder"):
        weight_files(folder)


def test_links_of_the_cache_of_the_hub_are_read_and_others_refused(families: dict[str, Path], tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--tiny"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    shutil.copytree(families["llama"], snapshot)
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    original, _ = readable(snapshot, source(snapshot))
    assert torch.equal(original.tensor(GATE), load_file(families["llama"] / ONE_FILE)[GATE])
    assert stamp(source(snapshot)) == stamp(source(families["llama"]))
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    (snapshot / "merges.txt").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match=r"merges\.txt is a link to .*, which is outside of the folder"):
        stamp(source(snapshot))
    with pytest.raises(BadInput, match="outside of the folder"):
        inside(snapshot, "../0123/config.json")


def test_a_file_in_a_subfolder_is_part_of_the_source(families: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(families["llama"], tmp_path / "model")
    listed_as("sub/model.safetensors")(folder)

    def key() -> str:
        return RESOLVE.key({"source": source(folder), "files": stamp(source(folder)), "place": ""})

    before, key_before = resolve(source(folder), tmp_path / "work", silent), key()
    assert "sub/model.safetensors" in before.sha256
    assert before.missing() == []
    found = load_file(folder / "sub/model.safetensors")
    save_file({name: one + 1 for name, one in found.items()}, folder / "sub/model.safetensors", {"format": "pt"})
    after = resolve(source(folder), tmp_path / "work", silent)
    assert after.identity() != before.identity()
    assert key() != key_before


def test_a_file_that_is_not_read_is_no_part_of_the_source(families: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(families["llama"], tmp_path / "model")
    before = resolve(source(folder), tmp_path / "work", silent)
    other_weights("consolidated.safetensors")(folder)
    write_index(folder, {WORDS: "consolidated.safetensors"})
    assert resolve(source(folder), tmp_path / "work", silent) == before


def test_a_tensor_is_left_out_on_the_word_of_the_owner_alone(families: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(families["llama"], tmp_path / "model")
    more = {f"mtp.layers.{number}.weight": torch.ones(2) for number in (0, 1)}
    tensors(lambda found: found.update(more))(folder)
    assert resolve(source(folder, "mtp.*"), tmp_path / "work", silent).left_out == tuple(sorted(more))
    with pytest.raises(BadInput, match=r"tensor mtp\.layers\.1\.weight"):
        readable(folder, source(folder, "mtp.layers.0.*"))
    with pytest.raises(BadInput, match=r"`old\.\*` in `source\.ignore` names no tensor"):
        readable(folder, source(folder, "mtp.*", "old.*"))


def test_a_pattern_does_not_make_a_needed_tensor_superfluous(families: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(families["llama"], tmp_path / "model")
    tensors(lambda found: found.pop(GATE))(folder)
    with pytest.raises(BadInput, match=f"tensor {GATE} is missing"):
        readable(folder, source(folder, "*"))
