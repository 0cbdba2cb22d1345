"""Parse a GGUF model once, with all its splits, although transformers opens a file for each thing it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy
from transformers import modeling_gguf_pytorch_utils as theirs

from taylor_ops.progress import Progress, silent


class _PlainReader(gguf.GGUFReader):  # type: ignore[misc]
    """A reader whose values are plain arrays over the mapped file.

    A slice of `numpy.memmap` costs several times a slice of an array, and a vocabulary has a hundred thousand of them.

    Attributes:
        modules: The tensor of the model for each GGUF tensor that transformers looks for. Empty until transformers has
            asked for the tensors.
    """

    modules: dict[str, str] = {}  # noqa: RUF012

    @property
    def data(self) -> Any:
        """All bytes of the file."""
        return self._data

    @data.setter
    def data(self, mapped: Any) -> None:
        self._data = mapped.view(numpy.ndarray)


@contextmanager
def parsed_once(files: Sequence[Path], progress: Progress = silent) -> Iterator[_PlainReader]:
    """Parse a GGUF model, and have all who open its first file by the library `gguf` meanwhile share the result.

    The table of tensor names, which transformers makes for every module of a model, is made once, too.

    Args:
        files: The splits of the model in order, or its only file. The reader has the tensors of all of them, and the
            metadata of the first, where the other splits have none.
        progress: Receives the values of the tensors that were dequantised meanwhile, and those of all tensors.

    Raises:
        ValueError, KeyError, IndexError, OSError: A file is no GGUF file, or is damaged, or is no split of the others.
    """
    usual_reader, usual_names, usual_values = gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize
    usual_map = theirs.get_gguf_hf_weights_map
    reader = _merged(files)
    done, total = 0, sum(int(tensor.n_elements) for tensor in reader.tensors)

    def shared(path: Any, *more: Any, **named: Any) -> Any:
        return reader if Path(path).samefile(files[0]) else usual_reader(path, *more, **named)

    def counted(*given: Any) -> Any:
        nonlocal done
        values = usual_values(*given)
        done += values.size
        progress(done, total)
        return values

    def noted(*given: Any, **named: Any) -> dict[str, str]:
        # It calls itself for the modules of the model, and the call for the whole model ends last.
        reader.modules = usual_map(*given, **named)
        return reader.modules

    gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize = shared, cache(usual_names), counted
    theirs.get_gguf_hf_weights_map = noted
    try:
        yield reader
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize = usual_reader, usual_names, usual_values
        theirs.get_gguf_hf_weights_map = usual_map


def _merged(files: Sequence[Path]) -> _PlainReader:
    """A reader of the first split with the tensors of all. Raises `ValueError` if the splits make no whole."""
    readers = [_PlainReader(file) for file in files]
    for number, (file, reader) in enumerate(zip(files, readers, strict=True)):
        count, own = (_number(reader, key) for key in ("split.count", "split.no"))
        if (count or 1, own or 0) != (len(files), number):
            raise ValueError(
                f"{file.name} says that it is split {(own or 0) + 1} of {count or 1}, its name that it is "
                f"{number + 1} of {len(files)}"
            )
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    twice = next((name for name, times in Counter(tensor.name for tensor in tensors).items() if times > 1), None)
    if twice is not None:
        raise ValueError(f"the tensor {twice} is there twice")
    stated = _number(readers[0], "split.tensors.count")
    if stated is not None and stated != len(tensors):
        raise ValueError(f"{len(tensors)} tensors are there, and `split.tensors.count` says {stated}")
    readers[0].tensors = tensors
    return readers[0]


def _number(reader: gguf.GGUFReader, key: str) -> int | None:
    field = reader.get_field(key)
    return None if field is None else int(field.contents())
