"""The parts into which a conversion is cut. Any process can make each of them on its own."""

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
    """Tensors that are made together: the tensors of some decoder layers, or the tensors outside of all layers.

    A process has one part at a time in memory.

    Attributes:
        names: Names of the tensors that are taken over unchanged.
        mlps: The MLPs that become Taylor MLPs.
        values: About how many numbers the part will hold.
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
    """One part to be converted into `folder`, by any process. It has paths and small records, but no tensors.

    Attributes:
        number: Index of the part. The parts take turns on several GPUs in this order.
        device: Device on which terms are made.
        processor: Processor of the machine that made the job. Series are fitted on such a processor alone, because
            other instructions give other last bits.
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
        """The one device of this part on this machine. If `cuda` finds no GPU, it is the CPU."""
        if self.device.type == "cpu" or self.device.index is not None:
            return self.device
        gpus = torch.cuda.device_count()
        return torch.device(self.device.type, self.number % gpus) if gpus else CPU

    def require_able(self) -> None:
        """Raise `WorkFailed` if this machine has another kind of processor, or lacks the GPU that the job names."""
        own_processor = processor(CPU)
        if own_processor != self.processor:
            raise WorkFailed(
                f"a worker on {platform.node()} has another kind of processor ({own_processor}) than the machine that "
                f"this release was begun on ({self.processor}): its numbers would differ in their last bits",
                "set `execution.address` to a cluster whose machines all have the kind of processor that the release "
                "was begun on",
            )
        if self.place.type == "cuda" and (self.place.index or 0) >= torch.cuda.device_count():
            raise WorkFailed(
                f"a worker on {platform.node()} has no device {self.place}",
                "set `device: cuda`, which takes whatever GPUs a worker has, or give every worker this GPU",
            )


Carry = Callable[[Sequence[Job], Callable[[int], None]], None]
"""Calls `convert_part` once for every job, in any order and process, and reports how many are done."""


def parts_of(original: Original, plan: Plan) -> list[Part]:
    """The parts of a converted model, in the order of its layers. Small neighbouring layers share a part."""
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
    """The decoder layer of a name: its module path up to the first number, or the whole name if it has no number."""
    names = name.split(".")
    number = next((index for index, part in enumerate(names) if part.isdigit()), len(names))
    return ".".join(names[: number + 1])
