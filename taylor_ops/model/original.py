"""The original model on disk, by the names of its modules: its MLPs, their weights, and all other tensors."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
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
        stored = {module: names[0] for module, names in self._names_of.items()}
        for target, source in self.stored_names.tied.items():
            # As transformers does: if only the tied tensor is stored, the other takes its values.
            if source not in stored and target in stored:
                stored[source] = stored[target]
        return stored

    @cached_property
    def _names_of(self) -> dict[str, list[str]]:
        """All stored names of every tensor, by its name in the modules."""
        one_by_one = (name for layers in self._experts.values() for name in layers)
        known = {*self.shapes, *self.stored_names.tied, *one_by_one}
        names_of: dict[str, list[str]] = {}
        for name in self.checkpoint.names():
            module = self.stored_names.module_name(name, self.architecture.renamed, known)
            names_of.setdefault(module, []).append(name)
        return names_of

    @cached_property
    def _experts(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Names and shapes of the weights that a file may store one by one, for each stacked tensor of experts."""
        stacked = {f"{mlp.module}.{name}": mlp.module for mlp in self.mlps if mlp.kind.experts for name in _pair(mlp)}
        experts: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, module in stacked.items():
            half, layers = (2, _EXPERT_LAYERS[:2]) if name.endswith(".gate_up_proj") else (1, _EXPERT_LAYERS[2:])
            count, rows, columns = self.shapes[name]
            experts[name] = {
                f"{module}.{expert}.{layer}.weight": (rows // half, columns)
                for expert in range(count)
                for layer in layers
            }
        return experts

    @cached_property
    def _needed(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor that the files have to hold. Experts stand one by one if stored so."""
        needed: dict[str, tuple[int, ...]] = {}
        for name, shape in self.shapes.items():
            one_by_one = name in self._experts and name not in self._stored
            needed.update(self._experts[name] if one_by_one else {name: shape})
        return needed

    def unfit(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Tensors that the files lack or have in another shape: name -> needed shape, stored shape or None."""
        stored = {
            name: self.checkpoint.shape(self._stored[name]) if name in self._stored else None for name in self._needed
        }
        return {name: (shape, stored[name]) for name, shape in self._needed.items() if stored[name] != shape}

    def doubled(self) -> Iterator[tuple[str, str]]:
        """Pairs of stored names that mean the same tensor of the model, so that a loader has to choose one."""
        for module, names in self._names_of.items():
            if len(names) > 1 and (module in self._needed or module in self.stored_names.tied):
                yield names[0], names[1]

    def apart(self) -> Iterator[tuple[str, str]]:
        """Pairs of stored names of experts of one tensor that have the prefix of the base model not equally often.

        transformers stacks experts in the order of their stored names, which is another one then.
        """
        prefix = re.compile(rf"({re.escape(self.stored_names.prefix)}\.)*")
        for layers in self._experts.values():
            stored = {name: self._stored[name] for name in layers if name in self._stored}
            one_of_each = {prefix.match(place)[0]: place for place in stored.values()}  # type: ignore[index]
            if len(one_of_each) > 1:
                first, second, *_ = sorted(one_of_each.values())
                yield first, second

    def of_another_type(self) -> Iterator[str]:
        """Stored names of tensors that are no plain floating-point numbers, though the model takes such."""
        for name in self._needed:
            if name not in self.stored_names.whole_numbers and self.checkpoint.dtype(self._stored[name]) is None:
                yield self._stored[name]

    def unused(self) -> list[str]:
        """Stored names of tensors that the model does not take, and that are not known to be derived, sorted."""
        used = {self._stored[name] for name in self._needed if name in self._stored}
        return sorted(
            name
            for module, names in self._names_of.items()
            for name in names
            if name not in used
            and module not in self.stored_names.tied
            and not self.stored_names.is_derived(module, self.checkpoint.shape(name))
        )

    def unequal_copies(self) -> Iterator[tuple[str, str]]:
        """Stored names of tensors that the config ties, where both are stored and differ. Reads both, in blocks."""
        for target, source in self.stored_names.tied.items():
            if target in self._names_of and source in self._names_of:
                copy_name, name = self._stored[target], self._stored[source]
                if not self.checkpoint.same_values(copy_name, name):
                    yield copy_name, name

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
        for cached in ("_stored", "_names_of", "_needed"):
            other.__dict__.pop(cached, None)
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
