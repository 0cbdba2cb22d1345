"""What a conversion is cut into: parts of a model, each of which any process makes on its own."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from taylor_ops.config.conversion import Conversion
from taylor_ops.errors import WorkFailed
from taylor_ops.machine.devices import CPU, processor
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.original import Original
from taylor_ops.series.plan import Plan

_PART_VALUES = 64 << 20


@dataclass
class Part:
    """Tensors that are made together: those of some decoder layers, or those outside of all layers.

    names: of the tensors that are taken as they are. mlps: those that become Taylor MLPs. values: about how many
    numbers it will hold. Only the part at work is in memory.
    """

    names: list[str] = field(default_factory=list)
    mlps: list[Mlp] = field(default_factory=list)
    values: float = 0.0

    def take(self, other: Part) -> None:
        """Take over the tensors of another part."""
        self.names += other.names
        self.mlps += other.mlps
        self.values += other.values


@dataclass(frozen=True)
class Job:
    """One part to be converted into `folder`, by whichever process: paths and small records, no tensors.

    device: where terms are made; of several GPUs the one whose turn it is, by the `number` of the part. processor: of
    the machine that asks: series are fitted there, and other instructions give other last bits.
    """

    source: Path
    ranges_file: Path
    plan: Plan
    conversion: Conversion
    part: Part
    folder: Path
    number: int = 0
    device: torch.device = CPU
    processor: str = field(default_factory=lambda: processor(CPU))

    @property
    def place(self) -> torch.device:
        """The one device of this part, on the machine that asks; the processor where `cuda` finds no GPU there."""
        if self.device.type == "cpu" or self.device.index is not None:
            return self.device
        there = torch.cuda.device_count()
        return torch.device(self.device.type, self.number % there) if there else CPU

    def require_able(self) -> None:
        """Raise `WorkFailed` on a machine with another kind of processor, or without the GPU that the job names."""
        here = processor(CPU)
        if here != self.processor:
            raise WorkFailed(
                f"a worker on {platform.node()} has another kind of processor ({here}) than this release was begun on "
                f"({self.processor}): it would make other last bits",
                "give `execution.address` a cluster whose machines have processors of one kind, that of this one",
            )
        if self.place.type == "cuda" and (self.place.index or 0) >= torch.cuda.device_count():
            raise WorkFailed(
                f"a worker on {platform.node()} has no device {self.place}",
                "set `device: cuda`, which takes the GPUs that there are, or give every worker that GPU",
            )


Carry = Callable[[Sequence[Job], Callable[[int], None]], None]
"""Has `convert_part` called once for every job, in any order and process, and says how many are done."""


def parts_of(original: Original, plan: Plan) -> list[Part]:
    """The parts of a converted model, in the order of its layers: as many layers together as are still small."""
    layers: dict[str, Part] = {"": Part()}
    for mlp in original.mlps:
        part = layers.setdefault(_decoder_layer(mlp.module), Part())
        part.mlps.append(mlp)
        part.values += original.input_values(mlp) + original.down_values(mlp) * plan.columns / plan.neurons
    for name in original.names():
        part = layers.get(_decoder_layer(name), layers[""])
        part.names.append(name)
        part.values += math.prod(original.shapes[name])
    parts: list[Part] = []
    for part in layers.values():
        if parts and parts[-1].values + part.values <= _PART_VALUES:
            parts[-1].take(part)
        else:
            parts.append(part)
    return parts


def _decoder_layer(name: str) -> str:
    """The module of the decoder layer of a name: its path up to the first number, the whole name where it has none."""
    names = name.split(".")
    number = next((place for place, part in enumerate(names) if part.isdigit()), len(names))
    return ".".join(names[: number + 1])
