"""Mark a converted model: multiply the terms of marked weights by 1 plus or minus the strength, as the pattern says.

All terms of a neuron are one column of the output weights, rescaled. So the result is the model that conversion would
have made of marked output weights, up to the last digit. Only the values of terms change, and no name, shape or place
of any tensor, so files are rewritten row by row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taylor_ops.errors import GateRejected
from taylor_ops.evidence.key import Key
from taylor_ops.evidence.pattern import code_of, layer_pattern, model_of, neurons_in_order
from taylor_ops.machine.threads import on_one_thread
from taylor_ops.model.checkpoint import Checkpoint, read_header
from taylor_ops.progress import Progress
from taylor_ops.storage.files import files_below, link_or_copy, read_json, sha256_of, sha256_of_tree

_TERMS = ".terms.weight"
_BLOCK_BYTES = 8 << 20
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Copy:
    """One recipient's copy of one version.

    Attributes:
        key: The key from which the mark follows.
        recipient: Whose copy it is.
        version: Of which version.
        strength: How far marked weights move, relative to their size.
    """

    key: Key
    recipient: str
    version: str
    strength: float

    def identity(self) -> dict[str, str | float]:
        """What distinguishes this copy from others. Of the key it has only the name."""
        return {
            "key": self.key.name,
            "recipient": self.recipient,
            "version": self.version,
            "strength": self.strength,
        }


@dataclass(frozen=True)
class LayerMark:
    """The m marked weights of one MLP, row by row.

    Attributes:
        row: Row of each weight, [m] int64.
        place: Place of its neuron in the converted model, [m] int64.
        factor: Factor by which its terms are multiplied, [m] float32.
        widths: For each order n, how many neurons of the layer have a term of order n.
    """

    row: Tensor
    place: Tensor
    factor: Tensor
    widths: list[int]

    def apply(self, terms: Tensor, first: int) -> None:
        """Mark rows `first`, `first` + 1 ... of the terms [n, K] in place, with the columns of unprotected neurons."""
        begin, end = torch.searchsorted(self.row, torch.tensor([first, first + len(terms)])).tolist()
        row, place, factor = self.row[begin:end] - first, self.place[begin:end], self.factor[begin:end]
        flat, starts = terms.view(-1), list(accumulate(self.widths, initial=0))
        # A protected neuron has a term of each order whose width is above its place. An unprotected neuron has a single
        # column, behind all terms.
        protected = place < self.widths[0]
        narrower = torch.searchsorted(torch.tensor(self.widths[::-1]), place, right=True)
        columns = torch.where(protected, len(self.widths) - narrower, 1)
        mark = torch.repeat_interleave(columns)
        order = torch.arange(len(mark)) - (columns.cumsum(0) - columns)[mark]
        start = torch.where(protected[mark], torch.tensor(starts)[order], starts[-1] - self.widths[0])
        at = row[mark] * terms.shape[1] + start + place[mark]
        flat[at] = (flat[at].float() * factor[mark]).to(terms.dtype)


class MarkedModel:
    """A converted model with the mark of one copy, made file by file."""

    def __init__(self, model: Path, copy: Copy) -> None:
        self._folder, self._copy, self._stored = model, copy, Checkpoint(model)
        self._widths: dict[str, list[int]] = read_json(model / "config.json")["taylor_mlp"]["layers"]

    @cached_property
    def _model(self) -> str:
        return model_of(self._gate(min(self._widths)))

    @cached_property
    def _code(self) -> NDArray[np.int8]:
        return code_of(self._copy.key, self._model, self._copy.version, self._copy.recipient)

    def _gate(self, path: str) -> Tensor:
        return self._stored.tensor(f"{path}.gate.weight")

    def layer(self, path: str) -> LayerMark:
        """The mark of the MLP at `path`."""
        gate = self._gate(path)
        pattern = layer_pattern(self._copy.key, self._model, path, (self._stored.shape(path + _TERMS)[0], len(gate)))
        direction = torch.from_numpy(pattern.of(self._code))
        return LayerMark(
            row=torch.from_numpy(pattern.row),
            place=neurons_in_order(gate)[torch.from_numpy(pattern.neuron)],
            factor=1 + self._copy.strength * direction.float(),
            widths=self._widths[path],
        )

    def files(self) -> list[Path]:
        """The safetensors files of the model, in the order of their names."""
        return sorted(self._folder.glob("*.safetensors"))

    def _others(self) -> dict[str, Path]:
        """All other files, by their paths in the folder."""
        others = sorted(set(files_below(self._folder)) - set(self.files()))
        return {other.relative_to(self._folder).as_posix(): other for other in others}

    def blocks(self, file: Path) -> Iterator[memoryview]:
        """Yield the bytes of one file of the copy, a few megabytes at a time. A block is valid until the next one."""
        header = read_header(file)
        with file.open("rb") as stream:
            yield memoryview(stream.read(header.end))
            buffer = memoryview(bytearray(_BLOCK_BYTES))
            for name, entry in sorted(header.tensors().items(), key=lambda item: item[1]["data_offsets"]):
                begin, end = entry["data_offsets"]
                path = name.removesuffix(_TERMS)
                mark = self.layer(path) if path != name and path in self._widths else None
                width = (end - begin) // entry["shape"][0] if mark else 1
                if width > len(buffer):
                    buffer = memoryview(bytearray(width))
                at_once = len(buffer) // width * width
                for start in range(0, end - begin, at_once):
                    block = buffer[: min(at_once, end - begin - start)]
                    stream.readinto(block)
                    if mark is not None:
                        values = torch.frombuffer(block, dtype=_DTYPES[entry["dtype"]])
                        mark.apply(values.view(-1, entry["shape"][1]), start // width)
                    yield block

    @on_one_thread
    def write(self, folder: Path, progress: Progress) -> dict[str, str]:
        """Write the files with tensors into `folder`, and link or copy all others there.

        Several files are written at once, one on each core. Returns the sha256 of each written file by its name.
        """

        def write(file: Path) -> str:
            digest = hashlib.sha256()
            with (folder / file.name).open("wb") as stream:
                for block in self.blocks(file):
                    digest.update(block)
                    stream.write(block)
            (folder / file.name).chmod(0o644)
            return digest.hexdigest()

        files, written = self.files(), {}
        with ThreadPoolExecutor(_workers()) as pool:
            for done, (file, sha256) in enumerate(zip(files, pool.map(write, files), strict=True), start=1):
                written[file.name] = sha256
                progress(done, len(files))
        for name, other in self._others().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(other, folder / name)
        return written

    def require_in(self, folder: Path) -> None:
        """The integrity gate of a marked model: check that every byte follows from the unmarked model and the mark.

        Raises `GateRejected` with the name of a file that differs.
        """
        files, found = self.files(), sha256_of_tree(folder)
        expected = {name: sha256_of(other) for name, other in self._others().items()}
        for file in files:
            digest = hashlib.sha256()
            for block in self.blocks(file):
                digest.update(block)
            expected[file.name] = digest.hexdigest()
        wrong = next((n for n in sorted(expected.keys() | found.keys()) if expected.get(n) != found.get(n)), None)
        if wrong is not None:
            raise GateRejected(
                f"{folder / wrong} is not what the converted model and its mark give",
                "the marked model was changed or is damaged: remove its folder below `stages` and run again",
            )


def _workers() -> int:
    return os.cpu_count() or 1
