"""Safetensors files that are changed at random: their bytes, their headers, the tensors in them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.model.checkpoint import read_header
from tests.support.layouts import Change

_DTYPES = ("F64", "F32", "F16", "BF16", "I8", "U8", "I32", "I64", "BOOL", "F8_E4M3", "X9")


@dataclass
class Spoilt:
    """A model folder that is being spoilt, and what decides how."""

    folder: Path
    draw: random.Random

    @property
    def file(self) -> Path:
        """One of its weight files."""
        return self.draw.choice(sorted(self.folder.glob("*.safetensors")))

    def change(self, change: Change) -> None:
        """Change it in a way that the tests know."""
        change(self.folder)


Spoil = Callable[[Spoilt], object]


def _cut(one: Spoilt) -> None:
    file = one.file
    os.truncate(file, one.draw.choice((0, 7, 8, 100, one.draw.randrange(file.stat().st_size))))


def _longer(one: Spoilt) -> None:
    with one.file.open("ab") as stream:
        stream.write(one.draw.randbytes(one.draw.choice((1, 8, 4096))))


def _flipped(one: Spoilt, whole: bool) -> None:
    file = one.file
    end = file.stat().st_size if whole else read_header(file).end
    begin = read_header(file).end if whole else 0
    data = bytearray(file.read_bytes())
    for _ in range(one.draw.choice((1, 1, 3))):
        data[one.draw.randrange(begin, end)] ^= 1 << one.draw.randrange(8)
    file.write_bytes(data)


def _length(one: Spoilt) -> None:
    file = one.file
    data = bytearray(file.read_bytes())
    said = one.draw.choice((0, 1, 7, len(data), len(data) - 8, 2**31, 2**63, 2**64 - 1))
    data[:8] = said.to_bytes(8, "little")
    file.write_bytes(data)


def _header(change: Callable[[random.Random, dict[str, Any]], None]) -> Spoil:
    """Write the header of a file anew, over the same values."""

    def spoil(one: Spoilt) -> None:
        file = one.file
        header = read_header(file)
        entries = json.loads(header.text)
        change(one.draw, entries)
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        file.write_bytes(len(text).to_bytes(8, "little") + text + file.read_bytes()[header.end :])

    return spoil


def _named(entries: dict[str, Any]) -> list[str]:
    return sorted(name for name in entries if name != "__metadata__")


def _another_dtype(draw: random.Random, entries: dict[str, Any]) -> None:
    entries[draw.choice(_named(entries))]["dtype"] = draw.choice(_DTYPES)


def _half_as_wide(draw: random.Random, entries: dict[str, Any]) -> None:
    # Twice as many values of half the bytes: the file stays whole.
    entry = entries[draw.choice(_named(entries))]
    entry["dtype"], entry["shape"] = draw.choice(("F16", "BF16")), [2 * entry["shape"][0], *entry["shape"][1:]]


def _another_shape(draw: random.Random, entries: dict[str, Any]) -> None:
    entry = entries[draw.choice(_named(entries))]
    entry["shape"] = draw.choice((entry["shape"][::-1], [1, *entry["shape"]], [*entry["shape"], 1], [], [-1]))


def _places_swapped(draw: random.Random, entries: dict[str, Any]) -> None:
    one, other = draw.sample(_named(entries), 2)
    offsets = entries[one]["data_offsets"], entries[other]["data_offsets"]
    entries[other]["data_offsets"], entries[one]["data_offsets"] = offsets


def _one_place(draw: random.Random, entries: dict[str, Any]) -> None:
    one, other = draw.sample(_named(entries), 2)
    entries[one] = dict(entries[other])


def _held(change: Callable[[random.Random, dict[str, Tensor]], None]) -> Spoil:
    """Save one file of the weights anew, with other tensors in it."""

    def spoil(one: Spoilt) -> None:
        file = one.file
        found = load_file(file)
        change(one.draw, found)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, file, {"format": "pt"})

    return spoil


def _missing(draw: random.Random, found: dict[str, Tensor]) -> None:
    for name in draw.sample(sorted(found), draw.choice((1, 1, 3))):
        del found[name]


def _renamed(draw: random.Random, found: dict[str, Tensor]) -> None:
    name = draw.choice(sorted(found))
    others = (f"{name}s", name.upper(), name.replace(".weight", ""), f"module.{name}", name.replace("0", "1"), " ")
    found[draw.choice(others)] = found.pop(name)


def _values_swapped(draw: random.Random, found: dict[str, Tensor]) -> None:
    one, other = draw.sample(sorted(found), 2)
    found[one], found[other] = found[other], found[one]


def _turned(draw: random.Random, found: dict[str, Tensor]) -> None:
    name = draw.choice([name for name in sorted(found) if found[name].dim() == 2])
    found[name] = found[name].T


def _cast(draw: random.Random, found: dict[str, Tensor]) -> None:
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64)
    name = draw.choice(sorted(found))
    found[name] = found[name].to(draw.choice((*dtypes, torch.float8_e4m3fn, torch.uint8)))


def _more(draw: random.Random, found: dict[str, Tensor]) -> None:
    name = draw.choice(sorted(found))
    stem = name.rpartition(".")[0]
    names = (
        f"{stem}.bias",
        f"{stem}.lora_A.weight",
        f"{stem}.weight_scale",
        name.partition(".")[2] or "x",
        "lm_head.bias",
    )
    found[draw.choice((*names, "model.layers.9.mlp.up_proj.weight", "optimizer.state", ""))] = found[name] + 1


def _not_finite(draw: random.Random, found: dict[str, Tensor]) -> None:
    tensor = found[draw.choice(sorted(found))]
    tensor.view(-1)[draw.randrange(tensor.numel())] = draw.choice((float("nan"), float("inf"), -float("inf")))


def _smaller(draw: random.Random, found: dict[str, Tensor]) -> None:
    name = draw.choice(sorted(found))
    found[name] = found[name][: draw.randrange(found[name].shape[0])]


WEIGHTS: dict[str, Spoil] = {
    "file cut": _cut,
    "file longer": _longer,
    "header flipped": lambda one: _flipped(one, whole=False),
    "values flipped": lambda one: _flipped(one, whole=True),
    "length of the header": _length,
    "dtype in the header": _header(_another_dtype),
    "half as wide in the header": _header(_half_as_wide),
    "shape in the header": _header(_another_shape),
    "places swapped in the header": _header(_places_swapped),
    "one place in the header": _header(_one_place),
    "tensor missing": _held(_missing),
    "tensor renamed": _held(_renamed),
    "tensors swapped": _held(_values_swapped),
    "tensor turned": _held(_turned),
    "tensor of another type": _held(_cast),
    "tensor smaller": _held(_smaller),
    "tensor more": _held(_more),
    "not finite": _held(_not_finite),
}
