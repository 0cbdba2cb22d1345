"""A GGUF model is read whole, with all its splits, or is refused by the names of what is missing or not used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file
from tokenizers import pre_tokenizers

from taylor_ops.config.source import GgufSource
from taylor_ops.errors import BadInput
from taylor_ops.source.gguf import gguf_files
from taylor_ops.source.resolve import resolve, stamp
from tests.taylor_ops.conftest import silent

LAYERS, HIDDEN, INNER, HEADS, KEYS, WORDS = 2, 32, 48, 4, 2, 260
Tensors = dict[str, numpy.ndarray]


def tensors(tied: bool = False) -> Tensors:
    """All tensors of a tiny llama under their GGUF names."""
    random = numpy.random.default_rng(0)

    def weights(rows: int, columns: int) -> numpy.ndarray:
        return random.standard_normal((rows, columns)).astype(numpy.float32)

    found = {"token_embd.weight": weights(WORDS, HIDDEN), "output_norm.weight": numpy.ones(HIDDEN, numpy.float32)}
    for layer in range(LAYERS):
        sizes = {
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (HIDDEN * KEYS // HEADS, HIDDEN),
            "attn_v": (HIDDEN * KEYS // HEADS, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }
        found |= {f"blk.{layer}.{name}.weight": weights(*shape) for name, shape in sizes.items()}
        found |= {f"blk.{layer}.{name}.weight": numpy.ones(HIDDEN, numpy.float32) for name in ("attn_norm", "ffn_norm")}
    return found if tied else found | {"output.weight": weights(WORDS, HIDDEN)}


def write(
    file: Path,
    held: Tensors,
    split: tuple[int, int, int] | None = None,
    metadata: bool = True,
    ids: Mapping[str, int] = {"bos": 256, "eos": 257},
) -> Path:
    """Write a GGUF file. split: its number, the number of all splits, and that of all tensors."""
    file.parent.mkdir(exist_ok=True)
    writer = GGUFWriter(file, "llama")
    if metadata:
        writer.add_name("tiny")
        writer.add_block_count(LAYERS)
        writer.add_context_length(2048)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEYS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(WORDS)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>", "th", "he"])
        writer.add_token_types([1] * 256 + [3, 3, 1, 1])
        writer.add_token_merges(["t h", "h e"])
        for role, number in ids.items():
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", number)
    if split is not None:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
        writer.add_int32("split.tensors.count", split[2])
    for name, values in held.items():
        writer.add_tensor(name, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return file


def write_splits(folder: Path, count: int, held: Tensors | None = None) -> list[Path]:
    """The model in so many splits, as llama.cpp names them."""
    held = held or tensors()
    names, files = list(held), []
    for number in range(count):
        own = {name: held[name] for name in names[number::count]}
        file = folder / f"tiny-{number + 1:05}-of-{count:05}.gguf"
        files.append(write(file, own, (number, count, len(held)), metadata=number == 0))
    return files


def without(names: Iterable[str], held: Tensors | None = None) -> Tensors:
    return {name: values for name, values in (held or tensors()).items() if name not in names}


def source(file: Path, *ignore: str) -> GgufSource:
    return GgufSource(kind="gguf", file=file, ignore=ignore)


def refused(file: Path, work: Path, *ignore: str) -> str:
    with pytest.raises(BadInput) as caught:
        resolve(source(file, *ignore), work, silent)
    assert len(str(caught.value).splitlines()) == 2
    assert not (work / "original").exists()
    return caught.value.cause


@pytest.mark.parametrize(("count", "given"), [(1, 0), (2, 0), (3, 2)])
def test_splits_give_the_tensors_of_the_whole_whichever_is_named(tmp_path: Path, count: int, given: int) -> None:
    files = write_splits(tmp_path, count)
    assert gguf_files(source(files[given])) == files
    resolve(source(files[given]), tmp_path / "splits", silent)
    resolve(source(write(tmp_path / "whole.gguf", tensors())), tmp_path / "whole", silent)
    one, other = (load_file(tmp_path / name / "original" / "model.safetensors") for name in ("splits", "whole"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    expected = torch.from_numpy(tensors()["blk.1.ffn_down.weight"])
    assert torch.equal(one["model.layers.1.mlp.down_proj.weight"], expected)


def test_every_split_is_part_of_the_stamp(tmp_path: Path) -> None:
    files = write_splits(tmp_path, 2)
    before = stamp(source(files[0]))
    assert before.keys() == {file.name for file in files}
    write_splits(tmp_path, 2, {name: values + 1 for name, values in tensors().items()})
    assert all(stamp(source(files[0]))[name] != sha256 for name, sha256 in before.items())


def test_a_licence_beside_a_file_goes_along_and_nothing_else_there(tmp_path: Path) -> None:
    file = write(tmp_path / "models" / "tiny.gguf", tensors())
    for name in ("LICENSE", "USE_POLICY.md", "notes.txt", "other.gguf", "tokenizer.model", "generation_config.json"):
        (file.parent / name).write_text(f"of {name}", encoding="utf-8")
    resolved = resolve(source(file), tmp_path / "work", silent)
    assert {"LICENSE", "USE_POLICY.md"} <= resolved.sha256.keys()
    assert not {"notes.txt", "other.gguf", "tokenizer.model"} & resolved.sha256.keys()
    assert (resolved.folder / "LICENSE").read_text(encoding="utf-8") == "of LICENSE"
    # What lies beside a file changes nothing that is read from it.
    alone = resolve(source(write(tmp_path / "alone" / "tiny.gguf", tensors())), tmp_path / "other", silent)
    assert alone.sha256 == {
        name: sha for name, sha in resolved.sha256.items() if name not in ("LICENSE", "USE_POLICY.md")
    }
    before = stamp(source(file))
    (file.parent / "notes.txt").write_text("other notes", encoding="utf-8")
    assert stamp(source(file)) == before
    (file.parent / "LICENSE").write_text("other terms", encoding="utf-8")
    assert stamp(source(file))["LICENSE"] != before["LICENSE"]


def test_a_licence_beside_a_file_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "models" / "tiny.gguf", tensors())
    (tmp_path / "secret").write_text("of another", encoding="utf-8")
    (file.parent / "LICENSE").symlink_to(tmp_path / "secret")
    assert "outside of the folder" in refused(file, tmp_path / "work")


@pytest.mark.parametrize("role", ["bos", "eos", "padding"])
def test_a_special_token_beyond_the_vocabulary_is_blamed_on_the_tokenizer(tmp_path: Path, role: str) -> None:
    file = write(tmp_path / "m.gguf", tensors(), ids={"bos": 256, "eos": 257, role: 260})
    with pytest.raises(BadInput) as caught:
        resolve(source(file), tmp_path / "work", silent)
    assert f"m.gguf: `tokenizer.ggml.{role}_token_id` is 260, but its vocabulary" in caught.value.cause
    assert "tokenizer" in caught.value.remedy
    assert "architecture" not in str(caught.value)


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    first, second = write_splits(tmp_path, 2)
    second.unlink()
    assert f"GGUF file {second} does not exist" in refused(first, tmp_path / "work")


def test_a_split_under_a_name_that_hides_the_others_is_refused(tmp_path: Path) -> None:
    first, _ = write_splits(tmp_path, 2)
    cause = refused(first.rename(tmp_path / "tiny.gguf"), tmp_path / "work")
    assert "says that it is split 1 of 2, its name that it is 1 of 1" in cause


def test_splits_in_another_order_are_refused(tmp_path: Path) -> None:
    first, second = write_splits(tmp_path, 2)
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert "says that it is split 2 of 2, its name that it is 1 of 2" in refused(first, tmp_path / "work")


def test_a_split_of_another_model_is_refused(tmp_path: Path) -> None:
    first, second = write_splits(tmp_path, 2)
    write(second, {"output_norm.weight": tensors()["output_norm.weight"]}, (1, 2, 0), metadata=False)
    assert "tensors are there, and `split.tensors.count` says 21" in refused(first, tmp_path / "work")


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        (["blk.1.ffn_down.weight"], "tensor blk.1.ffn_down.weight is missing"),
        (["token_embd.weight"], "tensor token_embd.weight is missing"),
        ([name for name in tensors() if name.startswith("blk.1.")], "9 tensors (blk.1.attn_k.weight, "),
    ],
)
def test_what_a_file_lacks_is_named_and_never_made_up(tmp_path: Path, lacking: list[str], named: str) -> None:
    assert named in refused(write(tmp_path / "m.gguf", without(lacking)), tmp_path / "work")


def test_a_file_with_tied_embeddings_needs_no_output_layer(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf", tensors(tied=True))
    assert resolve(source(file), tmp_path / "work", silent).parameters > 0


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    held = tensors() | {"blk.0.ffn_norm.weight": numpy.ones(HIDDEN // 2, numpy.float32)}
    cause = refused(write(tmp_path / "m.gguf", held), tmp_path / "work")
    assert "tensor model.layers.0.post_attention_layernorm.weight has shape (16,), its metadata asks for (32,)" in cause


def test_a_tensor_that_transformers_does_not_read_is_left_out_on_the_word_of_the_owner_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf", tensors() | {"rope_freqs.weight": numpy.ones(4, numpy.float32)})
    assert "the model does not use tensor rope_freqs.weight" in refused(file, tmp_path / "work")
    found = resolve(source(file, "rope_freqs.*"), tmp_path / "work", silent)
    assert found.left_out == ("rope_freqs.weight",)


def test_a_value_that_is_not_finite_is_blamed_on_the_file(tmp_path: Path) -> None:
    held = tensors()
    held["blk.1.ffn_down.weight"][0, 0] = numpy.nan
    file = write(tmp_path / "m.gguf", held)
    with pytest.raises(BadInput, match=r"m\.gguf: tensor .* holds NaN"):
        resolve(source(file), tmp_path / "work", silent)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.999])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, part: float) -> None:
    file = write(tmp_path / "m.gguf", tensors())
    os.truncate(file, int(part * file.stat().st_size))
    assert "m.gguf cannot be read as a GGUF model" in refused(file, tmp_path / "work")
