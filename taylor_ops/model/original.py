"""The original model on disk, by the names of its modules: its MLPs, their weights, and all other tensors."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from taylor_ops.model.architectures import Mlp
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.shape import ModelShape

_EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class MlpWeights:
    """Weights of one MLP, in one form for all checkpoints: gate and up [F, H], down [H, F], biases [F] and [H]."""

    gate: Tensor
    up: Tensor | None
    down: Tensor
    gate_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None


class Original(ModelShape):
    """A model folder, read lazily: only a requested tensor is in memory."""

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The tensors as they are stored in the files."""
        return Checkpoint(self.folder)

    @cached_property
    def _stored(self) -> dict[str, str]:
        """Name of every tensor in the files, by its name in the modules."""
        return {self._module_name(name): name for name in self.checkpoint.names()}

    def _module_name(self, name: str) -> str:
        for pattern, replacement in self.architecture.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def unfit(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Tensors that the files lack or have in another shape: name -> needed shape, stored shape or None."""
        needed: dict[str, tuple[int, ...]] = {}
        stacked = {f"{mlp.module}.{name}": mlp.module for mlp in self.mlps if mlp.kind.experts for name in _pair(mlp)}
        for name, shape in self.shapes.items():
            if name in stacked and name not in self._stored:
                half = 2 if name.endswith(".gate_up_proj") else 1
                layers = _EXPERT_LAYERS[:2] if half == 2 else _EXPERT_LAYERS[2:]
                for expert in range(shape[0]):
                    for layer in layers:
                        needed[f"{stacked[name]}.{expert}.{layer}.weight"] = (shape[1] // half, shape[2])
            else:
                needed[name] = shape
        stored = {name: self.checkpoint.shape(self._stored[name]) if name in self._stored else None for name in needed}
        return {name: (shape, stored[name]) for name, shape in needed.items() if stored[name] != shape}

    def tensor(self, name: str) -> Tensor:
        """Read one tensor to the CPU. Weights of experts, stored one by one, become [E, 2F, H] or [E, H, F]."""
        if name in self._stored:
            return self.checkpoint.tensor(self._stored[name])
        module, _, own = name.rpartition(".")
        layers = _EXPERT_LAYERS[:2] if own == "gate_up_proj" else _EXPERT_LAYERS[2:]
        rows = [
            torch.cat([self.tensor(f"{module}.{expert}.{layer}.weight") for layer in layers])
            for expert in range(self.shapes[name][0])
        ]
        return torch.stack(rows)

    def weights(self, mlp: Mlp) -> MlpWeights:
        """Read the weights of one MLP to the CPU."""
        kind = mlp.kind
        if mlp.expert is not None:
            return self._expert(mlp)

        def layer(name: str) -> tuple[Tensor, Tensor | None]:
            weight = self.tensor(f"{mlp.module}.{name}.weight")
            bias = f"{mlp.module}.{name}.bias"
            return weight.T if kind.transposed else weight, self.tensor(bias) if bias in self._stored else None

        (gate, gate_bias), (down, down_bias) = layer(kind.gate), layer(kind.down)
        up, up_bias = layer(kind.up) if kind.up else (None, None)
        if kind.up == kind.gate:
            gate, up = gate.chunk(2)
            if gate_bias is not None:
                gate_bias, up_bias = gate_bias.chunk(2)
        return MlpWeights(gate, up, down, gate_bias, up_bias, down_bias)

    def output_weights(self, mlp: Mlp) -> Tensor:
        """Read only the output weights [H, F] of one MLP to the CPU."""
        name = self._output_name(mlp)
        if mlp.expert is not None:
            stored = self._stored.get(name)
            return self.tensor(name) if stored else self.checkpoint.row(self._stored[self._stacked(mlp)], mlp.expert)
        weight = self.tensor(name)
        return weight.T if mlp.kind.transposed else weight

    def has_output_weights(self, mlp: Mlp) -> bool:
        """Whether the files have the output weights of one MLP. The files of an original always have them."""
        return self._output_name(mlp) in self._stored or (mlp.expert is not None and self._stacked(mlp) in self._stored)

    def _output_name(self, mlp: Mlp) -> str:
        if mlp.expert is not None:
            return f"{mlp.path}.{_EXPERT_LAYERS[2]}.weight"
        return f"{mlp.module}.{mlp.kind.down}.weight"

    def _stacked(self, mlp: Mlp) -> str:
        return f"{mlp.module}.{mlp.kind.down}"

    def saved_again(self, dtype: torch.dtype) -> int:
        """Bytes of the experts that the files store one by one, while the model takes them stacked.

        If layers stay on the disk, these experts are saved again in the form of the model.
        """
        unstacked = [mlp for mlp in self.mlps if mlp.expert is not None and self._stacked(mlp) not in self._stored]
        return dtype.itemsize * sum(self.input_values(mlp) + self.down_values(mlp) for mlp in unstacked)

    def read_from(self, checkpoint: Checkpoint) -> Original:
        """The same architecture with the tensors of another checkpoint, by the same names. Tensors may be missing."""
        other = copy.copy(self)
        other.__dict__.pop("_stored", None)
        other.__dict__["checkpoint"] = checkpoint
        return other

    def _expert(self, mlp: Mlp) -> MlpWeights:
        if f"{mlp.path}.down_proj.weight" in self._stored:
            gate, up, down = (self.tensor(f"{mlp.path}.{layer}.weight") for layer in _EXPERT_LAYERS)
            return MlpWeights(gate, up, down)
        both, down = (
            self.checkpoint.row(self._stored[f"{mlp.module}.{name}"], int(mlp.expert or 0)) for name in _pair(mlp)
        )
        gate, up = both.chunk(2)
        return MlpWeights(gate, up, down)


def _pair(mlp: Mlp) -> tuple[str, str]:
    return mlp.kind.gate, mlp.kind.down
