"""GGUF models that are changed at random and resolved; what is taken is what plain transformers loads whole."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy

from benchmarks.injected.case import Answer, of_call
from benchmarks.injected.loaded import otherwise_loaded
from taylor_ops.config.source import GgufSource
from taylor_ops.model.original import Original
from taylor_ops.progress import silent
from taylor_ops.source.resolve import resolve
from tests.taylor_ops.source.test_gguf_splits import Tensors, tensors, write, write_splits

_NAME = "tiny.gguf"
Spoil = Callable[[Path, random.Random], Path]


def _written(change: Callable[[random.Random, Tensors], None]) -> Spoil:
    """A file with other tensors."""

    def spoil(folder: Path, draw: random.Random) -> Path:
        held = tensors(tied=draw.random() < 0.5)
        change(draw, held)
        return write(folder / _NAME, held)

    return spoil


def _missing(draw: random.Random, held: Tensors) -> None:
    for name in draw.sample([name for name in held if name != "output.weight"], draw.choice((1, 1, 3))):
        del held[name]


def _more(draw: random.Random, held: Tensors) -> None:
    names = ("rope_freqs.weight", "blk.2.ffn_up.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_exps.weight", "x")
    held[draw.choice(names)] = numpy.ones(32, numpy.float32)


def _another_shape(draw: random.Random, held: Tensors) -> None:
    name = draw.choice(sorted(held))
    tensor = held[name]
    shapes = [tensor[: draw.randrange(1, tensor.shape[0])]]
    if tensor.ndim == 2:
        shapes.append(numpy.ascontiguousarray(tensor.T))
    held[name] = draw.choice(shapes)


def _not_finite(draw: random.Random, held: Tensors) -> None:
    held[draw.choice(sorted(held))].reshape(-1)[0] = draw.choice((numpy.nan, numpy.inf))


def _cut(folder: Path, draw: random.Random) -> Path:
    file = write(folder / _NAME, tensors())
    os.truncate(file, draw.randrange(file.stat().st_size))
    return file


def _flipped(folder: Path, draw: random.Random) -> Path:
    file = write(folder / _NAME, tensors())
    data = bytearray(file.read_bytes())
    for _ in range(draw.choice((1, 1, 3))):
        data[draw.randrange(draw.choice((24, 9_000)))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)
    return file


def _split_missing(folder: Path, draw: random.Random) -> Path:
    files = write_splits(folder, draw.choice((2, 3)))
    gone = draw.choice(files)
    gone.unlink()
    return draw.choice(files)


def _split_cut(folder: Path, draw: random.Random) -> Path:
    files = write_splits(folder, draw.choice((2, 3)))
    cut = draw.choice(files)
    os.truncate(cut, draw.randrange(cut.stat().st_size))
    return draw.choice(files)


def _splits_mixed(folder: Path, draw: random.Random) -> Path:
    files = write_splits(folder, 3)
    one, other = draw.sample(files, 2)
    one.rename(folder / "aside")
    other.rename(one)
    if draw.random() < 0.7:
        (folder / "aside").rename(other)
    return draw.choice(files)


def _split_count(folder: Path, draw: random.Random) -> Path:
    split = draw.choice(((0, 2, 21), (1, 1, 21), (0, 1, 20), (0, 0, 21), (7, 9, 0), (0, 65_535, -1)))
    return write(folder / draw.choice((_NAME, "tiny-00001-of-00001.gguf")), tensors(), split)


def _split_renamed(folder: Path, draw: random.Random) -> Path:
    files = write_splits(folder, 2)
    return draw.choice(files).rename(folder / draw.choice((_NAME, "tiny-00001-of-00001.gguf", "a-00003-of-00002.gguf")))


HARMLESS = ("GGUF as it is", "GGUF splits")
SPOILS: dict[str, Spoil] = {
    "GGUF as it is": _written(lambda _draw, _held: None),
    "GGUF splits": lambda folder, draw: draw.choice(write_splits(folder, draw.choice((2, 3)))),
    "GGUF cut": _cut,
    "GGUF flipped": _flipped,
    "GGUF tensor missing": _written(_missing),
    "GGUF tensor more": _written(_more),
    "GGUF tensor of another shape": _written(_another_shape),
    "GGUF not finite": _written(_not_finite),
    "GGUF split missing": _split_missing,
    "GGUF split cut": _split_cut,
    "GGUF splits mixed": _splits_mixed,
    "GGUF split count": _split_count,
    "GGUF split renamed": _split_renamed,
}
KINDS = tuple(SPOILS)


def answer(kind: str, place: Path, draw: random.Random) -> Answer:
    """How a spoilt GGUF model is resolved. A whole one in one file is held against plain transformers."""
    folder = place / "gguf"
    folder.mkdir()
    file = SPOILS[kind](folder, draw)
    before = {path.name for path in folder.iterdir()}

    def call() -> str:
        found = resolve(GgufSource(kind="gguf", file=file), place / "work", silent)
        # transformers reads one file: splits are held against the whole that they were made of.
        whole = file if len(before) == 1 else write(place / _NAME, tensors())
        return otherwise_loaded(
            Original(found.folder), pretrained_model_name_or_path=whole.parent, gguf_file=whole.name
        )

    return of_call(call, (*before, folder, "`source.file`"))
