"""Checkpoints are written in shards and read back as they were; whatever is wrong with one is named."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.model import shards
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.row_blocks import ByRows
from taylor_ops.model.shards import gather_shards, save_tensors, write_shards, write_tensors
from taylor_ops.model.weight_files import INDEX
from taylor_ops.storage.files import folder_that_appears_whole, read_json, sha256_of_tree

LFS_POINTER = """\
version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
RARE = (
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.int32, torch.int16, torch.int8, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
)

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
models = st.dictionaries(
    st.text("abc.0", min_size=1, max_size=8), st.tuples(shapes, st.sampled_from(DTYPES)), min_size=1, max_size=12
)


def filled(spec: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, Tensor]:
    """Tensors of the given shapes and types, each with values of its own."""
    generator = torch.Generator().manual_seed(0)
    return {name: (9 * torch.randn(shape, generator=generator)).to(dtype) for name, (shape, dtype) in spec.items()}


def size(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def shards_of(folder: Path) -> dict[str, list[str]]:
    """Names of the tensors in each safetensors file of a folder, as its header has them."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found[path.name] = sorted(file.keys())
    return found


def two_shards(folder: Path) -> Path:
    """A checkpoint of two shards with a tensor each, and an index."""
    write_shards(folder, [("first", torch.ones(4)), ("second", torch.zeros(4))], shard_bytes=16)
    return folder


def changed_index(folder: Path, change: Callable[[dict[str, str]], object]) -> Path:
    """The folder, after `change` on the weight map of its index."""
    index = read_json(folder / INDEX)
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return folder


# Writing and reading


@settings(deadline=None)
@given(spec=models, shard_bytes=st.integers(1, 400))
def test_what_is_written_in_shards_is_read_back_bit_by_bit(
    spec: dict[str, tuple[tuple[int, ...], torch.dtype]], shard_bytes: int
) -> None:
    tensors = filled(spec)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        total = write_shards(folder, tensors.items(), shard_bytes)
        read = Checkpoint(folder)
        assert read.names() == sorted(tensors)
        for name, tensor in tensors.items():
            assert name in read
            assert read.shape(name) == tuple(tensor.shape)
            assert read.dtype(name) == (tensor.dtype if tensor.is_floating_point() else None)
            assert read.tensor(name).dtype == tensor.dtype
            assert torch.equal(read.tensor(name), tensor)
        assert "another" not in read
        assert total == size(list(tensors.values()))


@settings(deadline=None)
@given(spec=models, shard_bytes=st.integers(1, 400))
def test_shards_are_numbered_indexed_and_no_larger_than_asked_for(
    spec: dict[str, tuple[tuple[int, ...], torch.dtype]], shard_bytes: int
) -> None:
    tensors = filled(spec)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        total = write_shards(folder, tensors.items(), shard_bytes)
        shards, index = shards_of(folder), read_json(folder / INDEX)
        count = len(shards)
        assert list(shards) == [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
        assert sorted(path.name for path in folder.iterdir()) == sorted([*shards, INDEX])
        assert index["weight_map"] == {name: file for file, names in shards.items() for name in names}
        assert index["metadata"]["total_size"] == total
        held = [[tensors[name] for name in names] for names in shards.values()]
        assert all(size(shard) <= shard_bytes or len([one for one in shard if one.nbytes]) == 1 for shard in held)
        assert all(size(one) + size(other) > shard_bytes for one, other in pairwise(held))


@settings(deadline=None, max_examples=25)
@given(spec=models, shard_bytes=st.integers(1, 400))
def test_equal_tensors_give_equal_bytes(spec: dict[str, tuple[tuple[int, ...], torch.dtype]], shard_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        write_shards(Path(one), filled(spec).items(), shard_bytes)
        write_shards(Path(other), filled(spec).items(), shard_bytes)
        assert sha256_of_tree(Path(one)) == sha256_of_tree(Path(other))


def test_a_view_that_is_not_contiguous_is_written_by_its_values(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    write_shards(tmp_path, [("turned", tensor.T), ("columns", tensor[:, ::2])], shard_bytes=1000)
    assert torch.equal(Checkpoint(tmp_path).tensor("turned"), tensor.T)
    assert torch.equal(Checkpoint(tmp_path).tensor("columns"), tensor[:, ::2])


def test_tensors_are_asked_for_one_by_one_and_let_go_when_their_shard_is_full(tmp_path: Path) -> None:
    on_disk: list[int] = []

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for number in range(6):
            on_disk.append(len(list(tmp_path.iterdir())))
            yield f"tensor-{number}", torch.ones(4)

    write_shards(tmp_path, tensors(), shard_bytes=32)
    assert on_disk == [0, 0, 0, 1, 1, 2]


def test_whoever_may_read_the_index_may_read_the_shards(tmp_path: Path) -> None:
    two_shards(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {(tmp_path / INDEX).stat().st_mode & 0o777}


def test_files_of_any_names_are_read_where_it_does_not_matter_what_a_loader_reads(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "two.safetensors")
    read = Checkpoint.of_all_files(tmp_path)
    assert read.names() == ["a", "b"]
    assert torch.equal(read.tensor("b"), torch.zeros(3))
    with pytest.raises(BadInput, match=r"one\.safetensors, which transformers does not load"):
        Checkpoint(tmp_path)


def test_tensors_are_compared_by_their_values_in_blocks(tmp_path: Path) -> None:
    values = torch.randn(2500, 2)
    other = values.clone()
    other[2400, 1] += 1e-3
    tensors = {"a": values, "same": values.double(), "other": other, "shorter": values[:2400].clone()}
    save_file(tensors, tmp_path / "model.safetensors")
    read = Checkpoint(tmp_path)
    assert read.same_values("a", "same")
    assert not read.same_values("a", "other")
    assert not read.same_values("a", "shorter")


def test_a_file_that_the_index_does_not_list_is_not_read(tmp_path: Path) -> None:
    two_shards(tmp_path)
    save_file({"third": torch.ones(2)}, tmp_path / "consolidated.safetensors")
    assert Checkpoint(tmp_path).names() == ["first", "second"]


def test_a_disk_that_fills_under_a_shard_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Iterator[Tensor]:
        yield torch.ones(1, 4)
        raise OSError(errno.ENOSPC, "No space left on device")

    tensor = ByRows((2, 4), torch.float32, full)
    with pytest.raises(WorkFailed, match="No space left"), folder_that_appears_whole(tmp_path / "out") as partial:
        write_shards(partial, [("first", tensor)], shard_bytes=16)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_under_a_small_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        # The type and the words of safetensors 0.8 on a full disk: no OSError.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(WorkFailed, match="No space left"), folder_that_appears_whole(tmp_path / "out") as partial:
        save_tensors({"first": torch.ones(4)}, partial / "ranges.safetensors")
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(spec=models, more=st.sampled_from([{}, {"numbers": torch.arange(5)}, {"one": torch.tensor(2.5)}]))
def test_a_shard_has_the_bytes_that_safetensors_itself_writes(
    spec: dict[str, tuple[tuple[int, ...], torch.dtype]], more: dict[str, Tensor]
) -> None:
    tensors = filled(spec) | more
    with tempfile.TemporaryDirectory() as scratch:
        own, theirs = Path(scratch) / "own.safetensors", Path(scratch) / "theirs.safetensors"
        write_tensors(tensors, own)
        save_tensors(tensors, theirs)
        assert own.read_bytes() == theirs.read_bytes()


def test_a_tensor_that_is_made_by_rows_is_written_as_a_whole_one(tmp_path: Path) -> None:
    whole = torch.arange(35.0).reshape(7, 5)
    write_tensors({"x": ByRows((7, 5), torch.float32, lambda: iter(whole.split(3)))}, tmp_path / "by-rows")
    write_tensors({"x": whole}, tmp_path / "whole")
    assert (tmp_path / "by-rows").read_bytes() == (tmp_path / "whole").read_bytes()


def test_every_type_of_a_buffer_is_written_as_safetensors_writes_it_and_gathered(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    tensors = {f"buffer.{9 - place}": torch.arange(6).to(dtype) for place, dtype in enumerate(DTYPES + RARE)}
    written = write_shards(part, tensors.items(), shard_bytes=10**6)
    save_tensors(tensors, tmp_path / "theirs.safetensors")
    assert (part / "model-00001-of-00001.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    (tmp_path / "whole").mkdir()
    assert gather_shards(tmp_path / "whole", [part]) == written == size(list(tensors.values()))
    read = Checkpoint(tmp_path / "whole")
    assert {name: read.tensor(name).dtype for name in tensors} == {name: one.dtype for name, one in tensors.items()}


# What is refused


def test_a_tensor_of_a_type_that_is_not_written_is_named_with_it(tmp_path: Path) -> None:
    tensors = [("weight", torch.ones(2)), ("rope.turns", torch.ones(2, dtype=torch.complex128))]
    with pytest.raises(BadInput) as caught:
        write_shards(tmp_path, tensors, shard_bytes=1000)
    assert caught.value.cause == "tensor rope.turns has dtype complex128, which cannot be written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt", "weights.pkl"])
def test_a_pickle_checkpoint_is_refused_by_name_and_never_opened(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        Checkpoint(tmp_path)
    assert file in caught.value.cause
    assert "can run any code" in caught.value.cause
    assert "safe_serialization=True" in caught.value.remedy


def test_safetensors_beside_a_pickle_checkpoint_are_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert Checkpoint(two_shards(tmp_path)).names() == ["first", "second"]


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no safetensors file") as caught:
        Checkpoint(tmp_path)
    assert str(tmp_path) in caught.value.cause


@settings(deadline=None)
@given(data=st.data(), indexed=st.booleans())
def test_a_file_cut_short_anywhere_is_named(data: st.DataObject, indexed: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = two_shards(Path(scratch))
        if not indexed:
            (folder / INDEX).unlink()
        cut = folder / "model-00002-of-00002.safetensors"
        whole = cut.read_bytes()
        cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(BadInput) as caught:
            Checkpoint(folder) if indexed else Checkpoint.of_all_files(folder)
    assert str(cut) in caught.value.cause
    assert "cut short" in caught.value.cause


def test_a_git_lfs_pointer_in_place_of_a_file_is_named_as_what_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text(LFS_POINTER, encoding="utf-8")
    with pytest.raises(BadInput, match=r"model\.safetensors cannot be read .* Git LFS pointer"):
        Checkpoint(tmp_path)


def test_a_file_that_the_index_names_and_is_not_there_is_named_with_the_tensor(tmp_path: Path) -> None:
    two_shards(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(BadInput) as caught:
        Checkpoint(tmp_path)
    assert f"{tmp_path / 'model-00001-of-00002.safetensors'} is missing" in caught.value.cause
    assert "first" in caught.value.cause


def test_a_tensor_that_the_index_places_in_the_wrong_file_is_named_with_the_file(tmp_path: Path) -> None:
    two_shards(tmp_path)
    changed_index(tmp_path, lambda listed: listed.update(first="model-00002-of-00002.safetensors"))
    with pytest.raises(BadInput) as caught:
        Checkpoint(tmp_path)
    assert f"tensor first is not in {tmp_path / 'model-00002-of-00002.safetensors'}" in caught.value.cause


def test_a_tensor_that_only_the_index_knows_is_named(tmp_path: Path) -> None:
    two_shards(tmp_path)
    changed_index(tmp_path, lambda listed: listed.update(third="model-00002-of-00002.safetensors"))
    with pytest.raises(BadInput, match="tensor third is not in"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", LFS_POINTER, "[]", "{}", "null", '{"weight_map": []}', '{"weight_map": null}', '{"weight_map": {"first": 5}}'],
)
def test_an_index_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    two_shards(tmp_path)
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        Checkpoint(tmp_path)
    assert str(tmp_path / INDEX) in caught.value.cause
    assert caught.value.exit_status == 2
