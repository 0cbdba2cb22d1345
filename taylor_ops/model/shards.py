"""Write tensors into safetensors files of limited size, a block at a time."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from taylor_ops.errors import BadInput
from taylor_ops.machine.threads import on_one_thread
from taylor_ops.model.row_blocks import ByRows
from taylor_ops.model.weight_files import INDEX
from taylor_ops.storage.files import canonical_json, link_or_copy, write_text

# In the order in which safetensors puts tensors into a file. Types of four bits, with two values a byte, are left out.
_WRITTEN = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


_SIZES = {name: dtype.itemsize for dtype, name in _WRITTEN.items()}


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor | ByRows]], shard_bytes: int) -> int:
    """Write named tensors into `folder` as numbered shards with an index. Returns the bytes of all tensors.

    Tensors are taken one by one and kept until a shard is full, but a `ByRows` is made only while it is written. A
    shard never exceeds `shard_bytes`, unless a single tensor does. The names of shards contain their count, so the
    files are renamed when the count is known.
    """
    shards: list[_Shard] = []
    pending: dict[str, Tensor | ByRows] = {}
    pending_bytes = 0

    def flush() -> None:
        nonlocal pending, pending_bytes
        file = folder / f".shard-{len(shards)}.safetensors"
        write_tensors(pending, file)
        shards.append(_Shard(file, sorted(pending), pending_bytes))
        pending, pending_bytes = {}, 0

    for name, tensor in tensors:
        if pending and pending_bytes + tensor.nbytes > shard_bytes:
            flush()
        pending[name] = tensor
        pending_bytes += tensor.nbytes
    flush()
    return _number(folder, shards, lambda file, numbered: file.rename(numbered))


def gather_shards(folder: Path, parts: Iterable[Path]) -> int:
    """Put the shards of `parts`, each a folder of `write_shards`, into `folder` with one numbering and one index.

    Files are linked if the file system allows it, and the parts stay as they are. Returns the bytes of all tensors.
    """
    shards: list[_Shard] = []
    for part in parts:
        for file in sorted(part.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                names = sorted(opened.keys())
                size = sum(_bytes(opened.get_slice(name)) for name in names)
            shards.append(_Shard(file, names, size))
    return _number(folder, shards, link_or_copy)


@dataclass(frozen=True)
class _Shard:
    """A file with the names of its tensors and their bytes."""

    file: Path
    names: list[str]
    bytes: int


def _number(folder: Path, shards: list[_Shard], put: Callable[[Path, Path], Any]) -> int:
    """Put shards into `folder` under their numbered names and write the index. Returns the bytes of all tensors."""
    weight_map = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        put(shard.file, folder / file)
        weight_map.update(dict.fromkeys(shard.names, file))
    total = sum(shard.bytes for shard in shards)
    write_text(folder / INDEX, canonical_json({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return total


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors as one safetensors file. A full disk raises `OSError`, as in `disk_errors_as_elsewhere`."""
    with disk_errors_as_elsewhere(path):
        save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


@contextmanager
def disk_errors_as_elsewhere(path: Path) -> Iterator[None]:
    """Turn the error of safetensors for a full disk into an `OSError` about `path`, as all other writers raise."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_tensors(tensors: dict[str, Tensor | ByRows], path: Path) -> None:
    """Write named tensors as one safetensors file, block by block, with the same bytes as `save_tensors` writes.

    While one block is written, the next one is made. Raises `BadInput` for a tensor whose type cannot be written.
    """
    unknown = next((name for name, tensor in tensors.items() if tensor.dtype not in _WRITTEN), None)
    if unknown is not None:
        raise BadInput(
            f"tensor {unknown} has dtype {str(tensors[unknown].dtype).removeprefix('torch.')}, which cannot be written",
            "store it in another type in the source, or leave it out if the model does not need it",
        )
    rank = {dtype: place for place, dtype in enumerate(_WRITTEN)}
    order = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += tensor.nbytes
        header[name] = {
            "dtype": _WRITTEN[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream, ThreadPoolExecutor(max_workers=1) as writer:
        written = writer.submit(stream.write, len(text).to_bytes(8, "little") + text)
        for name in order:
            tensor = tensors[name]
            blocks = tensor.blocks() if isinstance(tensor, ByRows) else iter([tensor])
            while (block := _next_made(blocks, None)) is not None:
                written.result()
                written = writer.submit(stream.write, _memory(block))
        written.result()
    path.chmod(0o644)


# Another thread writes meanwhile. If blocks were made on all cores, every step would wait for the core that writes.
_next_made = on_one_thread(next)


def _memory(tensor: Tensor) -> memoryview:
    """The values of a tensor, as a file stores them."""
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _bytes(tensor_slice: Any) -> int:
    """Bytes of a tensor in a file, from its safetensors slice."""
    shape: list[int] = tensor_slice.get_shape()
    return math.prod(shape) * _SIZES[tensor_slice.get_dtype()]
