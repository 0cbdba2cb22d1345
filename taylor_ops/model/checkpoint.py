"""Safetensors checkpoints, read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor

from taylor_ops.errors import BadInput
from taylor_ops.storage.files import read_json

_LENGTH_BYTES = 8
INDEX = "model.safetensors.index.json"
_WEIGHT_MAP = TypeAdapter(dict[str, str])
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
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
    """A folder of safetensors files, or one file of it, read lazily: only a requested tensor is in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder if folder.is_dir() else folder.parent
        self._file_of = self._index() if folder.is_dir() else dict.fromkeys(_names(folder), folder.name)

    def _index(self) -> dict[str, str]:
        files = sorted(self.folder.glob("*.safetensors"))
        if not files:
            pickles = sorted(path.name for path in self.folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
            if pickles:
                raise BadInput(
                    f"{self.folder} holds a pickle checkpoint ({pickles[0]}); loading one can run any code",
                    "convert it where you trust it: "
                    "AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder, safe_serialization=True)",
                )
            raise BadInput(f"{self.folder} holds no safetensors file", "point `source` at a complete model folder")
        index = self.folder / INDEX
        if index.exists():
            return dict(self._listed(index))
        return {name: path.name for path in files for name in _names(path)}

    def _listed(self, index: Path) -> Iterator[tuple[str, str]]:
        try:
            listed = _WEIGHT_MAP.validate_python(read_json(index).get("weight_map")).items()
        except ValueError as error:
            raise BadInput(
                f"{index} is not a safetensors index: its `weight_map` does not name a file for each tensor",
                "fetch the checkpoint again",
            ) from error
        names_in: dict[str, set[str]] = {}
        for name, file in listed:
            path = self.folder / file
            if not path.is_file():
                raise BadInput(f"{path} is missing; {index.name} says it holds {name}", "fetch the checkpoint again")
            if file not in names_in:
                names_in[file] = set(_names(path))
            if name not in names_in[file]:
                raise BadInput(f"tensor {name} is not in {path}, where {index.name} says it is", "fetch it again")
            yield name, file

    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._file_of)

    def stored(self) -> Iterator[tuple[str, str]]:
        """File and name of every tensor in the folder, whether the index lists it or not."""
        for path in sorted(self.folder.glob("*.safetensors")):
            for name in _names(path):
                yield path.name, name

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

    def columns(self, name: str, begin: int, end: int) -> Tensor:
        """Read only `tensor[:, begin:end]` of one matrix to the CPU."""
        with self._open(name) as file:
            columns: Tensor = file.get_slice(name)[:, begin:end]
            return columns

    def _open(self, name: str) -> Any:
        return safe_open(self.folder / self._file_of[name], framework="pt")


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as safetensors ({error}); it may be cut short or a Git LFS pointer",
            "fetch the file again",
        ) from error
