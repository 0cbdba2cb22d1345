"""Parse a GGUF file once, although transformers opens it anew for its config, its tokenizer and its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy

from taylor_ops.progress import Progress, silent


class _PlainReader(gguf.GGUFReader):  # type: ignore[misc]
    """A reader whose values are plain arrays over the mapped file.

    A slice of `numpy.memmap` costs several times a slice of an array, and a vocabulary has a hundred thousand of them.
    """

    @property
    def data(self) -> Any:
        """All bytes of the file."""
        return self._data

    @data.setter
    def data(self, mapped: Any) -> None:
        self._data = mapped.view(numpy.ndarray)


@contextmanager
def parsed_once(file: Path, progress: Progress = silent) -> Iterator[gguf.GGUFReader]:
    """Parse a GGUF file, and have all who open it by the library `gguf` meanwhile share the result.

    The table of tensor names, which transformers makes for every module of a model, is made once, too.

    Args:
        file: The GGUF file.
        progress: Receives the values of the tensors that were dequantised meanwhile, and those of all tensors.

    Raises:
        ValueError, KeyError, IndexError, OSError: The file is no GGUF file, or is damaged.
    """
    usual_reader, usual_names, usual_values = gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize
    reader = _PlainReader(file)
    done, total = 0, sum(int(tensor.n_elements) for tensor in reader.tensors)

    def shared(path: Any, *more: Any, **named: Any) -> Any:
        return reader if Path(path).samefile(file) else usual_reader(path, *more, **named)

    def counted(*given: Any) -> Any:
        nonlocal done
        values = usual_values(*given)
        done += values.size
        progress(done, total)
        return values

    gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize = shared, cache(usual_names), counted
    try:
        yield reader
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize = usual_reader, usual_names, usual_values
