"""Safetensors checkpoints, read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from taylor_ops.errors import BadInput
from taylor_ops.model.weight_files import INDEX, weight_files
from taylor_ops.storage.files import kind_of

_LENGTH_BYTES = 8
_ROWS = 1024
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file. text: its JSON; end: where it ends, and the bytes of the tensors begin."""

    text: bytes
    end: int

    def tensors(self) -> dict[str, Any]:
        """Type, shape and place of every tensor, by its name."""
        entries: dict[str, Any] = json.loads(self.text)
        return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def read_header(path: Path) -> Header:
    """The header of a file as it lies there: nothing of it is checked."""
    with path.open("rb") as stream:
        length = stream.read(_LENGTH_BYTES)
        text = stream.read(int.from_bytes(length, "little"))
        return Header(text, len(length) + len(text))


class Checkpoint:
    """What transformers loads from a folder, or one safetensors file. Only a requested tensor is in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder if folder.is_dir() else folder.parent
        self._file_of = _loaded(folder) if folder.is_dir() else dict.fromkeys(_names(folder), folder.name)

    @classmethod
    def of_all_files(cls, place: Path) -> Checkpoint:
        """All tensors in the safetensors files of a folder of anybody, or in one file, whatever loaders read."""
        if place.is_file():
            return cls(place)
        found = cls.__new__(cls)
        found.folder, found._file_of = place, {name: file for file, name in _stored(place)}
        # An index may name files in subfolders alone. If there are none either, this says what is there instead.
        return found if found._file_of else cls(place)

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return [self.folder / file for file in sorted(set(self._file_of.values()))]

    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._file_of)

    def stored(self) -> Iterator[tuple[str, str]]:
        """File and name of every tensor in the folder, whether the index lists it or not."""
        yield from _stored(self.folder)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header of its file."""
        with self._open(name) as file:
            return tuple(file.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype | None:
        """Data type of a floating-point tensor from the header of its file, None for any other tensor."""
        with self._open(name) as file:
            return _DTYPES.get(file.get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """Read one tensor to the CPU."""
        with self._open(name) as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def row(self, name: str, index: int) -> Tensor:
        """Read only `tensor[index]` of one tensor to the CPU."""
        with self._open(name) as file:
            row: Tensor = file.get_slice(name)[index]
            return row

    def same_values(self, first: str, second: str) -> bool:
        """Whether two tensors have one shape and equal values, whatever their types. A few rows are in memory at once.

        NaN equals nothing.
        """
        if self.shape(first) != self.shape(second):
            return False
        with self._open(first) as one, self._open(second) as other:
            rows, others = one.get_slice(first), other.get_slice(second)
            return all(
                torch.equal(rows[at : at + _ROWS].double(), others[at : at + _ROWS].double())
                for at in range(0, self.shape(first)[0], _ROWS)
            )

    def columns(self, name: str, begin: int, end: int) -> Tensor:
        """Read only `tensor[:, begin:end]` of one matrix to the CPU."""
        with self._open(name) as file:
            columns: Tensor = file.get_slice(name)[:, begin:end]
            return columns

    def _open(self, name: str) -> Any:
        return safe_open(self.folder / self._file_of[name], framework="pt")


def _loaded(folder: Path) -> dict[str, str]:
    """The file of every tensor that transformers loads from a folder."""
    files = weight_files(folder)
    file_of: dict[str, str] = {}
    for file in files.holding:
        for name in _names(folder / file):
            if name in file_of:
                raise BadInput(
                    f"tensor {name} is both in {folder / file_of[name]} and in {file}", "leave it in one of the files"
                )
            file_of[name] = file
    for name, file in (files.listed or {}).items():
        if file_of.get(name) != file:
            raise BadInput(f"tensor {name} is not in {folder / file}, where {INDEX} says it is", "fetch it again")
    return file_of


def _stored(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.safetensors")):
        if not path.is_file():
            raise BadInput(f"{path} is {kind_of(path)}, not a file", "put the file itself there, or remove it")
        for name in _names(path):
            yield path.name, name


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as safetensors ({error}); it may be cut short or a Git LFS pointer",
            "fetch the file again",
        ) from error
