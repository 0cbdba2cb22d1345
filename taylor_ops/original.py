"""The original model on disk, by the names of its modules: its MLPs, their weights, and all other tensors."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from taylor_ops.architectures import Architecture, Mlp, architecture_of, mlps_of
from taylor_ops.checkpoint import Checkpoint
from taylor_ops.errors import BadInput
from taylor_ops.series.activations import Activation, activation_named
from taylor_ops.storage.files import read_json

_EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")
_SHARED_BY_LAYERS = ("num_kv_shared_layers", "hidden_size_per_layer_input")


@dataclass(frozen=True)
class MlpWeights:
    """Weights of one MLP, whatever form the checkpoint has: gate and up [F, H], down [H, F], biases [F] and [H]."""

    gate: Tensor
    up: Tensor | None
    down: Tensor
    gate_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None


class ModelShape:
    """What the config of a model folder tells without its weights: architecture, MLPs, and the shape of every tensor.

    Names are those of the modules of transformers; `BadInput` on opening when the config or the architecture cannot be
    worked with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = model_config(folder)
        self.shapes = expected_shapes(self.config)
        self.architecture: Architecture = architecture_of(self.config, self.shapes)
        self.mlps: list[Mlp] = mlps_of(self.architecture, self.shapes)

    @cached_property
    def period(self) -> int:
        """How many decoder layers make the smallest model that stands for all; part of a model has a multiple of it.

        They repeat the types of layers in `layer_types` and the tensors of layers: in some models only every second one
        has experts. All layers where some take keys and values of others, or where an embedding for each layer makes
        one tensor for all: such a model has no part.
        """
        config, every = self.config, int(self.config.num_hidden_layers)
        if any(getattr(config, key, None) for key in _SHARED_BY_LAYERS):
            return every
        tensors: dict[int, set[tuple[str, tuple[int, ...]]]] = {number: set() for number in range(every)}
        for name, shape in self.shapes.items():
            number = layer_of(name)
            if number in tensors:
                tensors[number].add((name.partition(f".{number}.")[2], shape))
        named = getattr(config, "layer_types", None) or [None] * every
        types = list(zip(named, map(frozenset, tensors.values()), strict=True))
        for length in range(1, every // 2 + 1):
            whole = every // length * length
            if types[:whole] == types[:length] * (whole // length) and set(types) == set(types[:length]):
                return length
        return every

    def first_layers(self, count: int) -> Self:
        """The same model with only its first decoder layers: a multiple of `period`, or all."""
        shallow = copy.copy(self)
        every = self.config.num_hidden_layers
        shallow.config = copy.deepcopy(self.config)
        for name, value in self.config.to_dict().items():
            if isinstance(value, list) and len(value) == every:
                setattr(shallow.config, name, value[:count])
        shallow.config.num_hidden_layers = count
        shallow.shapes = {name: shape for name, shape in self.shapes.items() if (layer_of(name) or 0) < count}
        shallow.mlps = [mlp for mlp in self.mlps if (layer_of(mlp.module) or 0) < count]
        return shallow

    @property
    def activation(self) -> Activation:
        """The activation of its MLPs."""
        return activation_named(getattr(self.config, self.architecture.activation))

    def names(self) -> list[str]:
        """Names of all tensors that are not weights of an MLP, sorted."""
        own = {f"{mlp.module}.{layer}" for mlp in self.mlps for layer in (mlp.kind.gate, mlp.kind.up, mlp.kind.down)}
        return sorted(name for name in self.shapes if name not in own and name.rpartition(".")[0] not in own)

    @property
    def guard(self) -> str:
        """Name of the output weights of the first MLP, under which a bundle has a tensor of another size."""
        first = self.mlps[0]
        return f"{first.module}.{first.kind.down}" + ("" if first.kind.experts else ".weight")

    def down_values(self, mlp: Mlp) -> int:
        """How many output weights an MLP has."""
        if mlp.kind.experts:
            return math.prod(self.shapes[f"{mlp.module}.{mlp.kind.down}"][1:])
        return math.prod(self.shapes[f"{mlp.module}.{mlp.kind.down}.weight"])

    def input_values(self, mlp: Mlp) -> int:
        """How many weights and biases the layers have that make z and u of an MLP."""
        kind = mlp.kind
        if kind.experts:
            return math.prod(self.shapes[f"{mlp.module}.{kind.gate}"][1:])
        layers = {kind.gate, kind.up} - {None}
        names = [f"{mlp.module}.{layer}.{tensor}" for layer in layers for tensor in ("weight", "bias")]
        return sum(math.prod(self.shapes[name]) for name in names if name in self.shapes)

    def biases(self, mlp: Mlp) -> list[str]:
        """Which layers of the Taylor MLP in place of `mlp` have a bias: some of gate, up, terms."""
        layers = {"gate": mlp.kind.gate, "up": mlp.kind.up, "terms": mlp.kind.down}
        return [role for role, layer in layers.items() if f"{mlp.module}.{layer}.bias" in self.shapes]

    def layer_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of the tensors of all decoder layers in `dtype`."""
        inside = (shape for name, shape in self.shapes.items() if layer_of(name) is not None)
        return dtype.itemsize * sum(math.prod(shape) for shape in inside)

    def bytes(self, dtype: torch.dtype) -> int:
        """Bytes of all tensors of the model in `dtype`."""
        return dtype.itemsize * sum(torch.Size(shape).numel() for shape in self.shapes.values())


class Original(ModelShape):
    """A model folder, read lazily: only the tensor that is asked for is in memory."""

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its tensors as they lie in the files."""
        return Checkpoint(self.folder)

    @cached_property
    def _stored(self) -> dict[str, str]:
        """Name in the files of every tensor, by the name of its module."""
        return {self._module_name(name): name for name in self.checkpoint.names()}

    def _module_name(self, name: str) -> str:
        for pattern, replacement in self.architecture.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def unfit(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Tensors that the files do not have as the model needs them: name -> shape needed, shape there if any."""
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
        there = {name: self.checkpoint.shape(self._stored[name]) if name in self._stored else None for name in needed}
        return {name: (shape, there[name]) for name, shape in needed.items() if there[name] != shape}

    def tensor(self, name: str) -> Tensor:
        """Read one tensor to the CPU; stacked weights of experts [E, 2F, H] or [E, H, F] from those of each expert."""
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
        """Read the output weights [H, F] of one MLP to the CPU, and nothing else of it."""
        name = self._output_name(mlp)
        if mlp.expert is not None:
            stored = self._stored.get(name)
            return self.tensor(name) if stored else self.checkpoint.row(self._stored[self._stacked(mlp)], mlp.expert)
        weight = self.tensor(name)
        return weight.T if mlp.kind.transposed else weight

    def has_output_weights(self, mlp: Mlp) -> bool:
        """Whether the files have the output weights of one MLP; of an original they always do."""
        return self._output_name(mlp) in self._stored or (mlp.expert is not None and self._stacked(mlp) in self._stored)

    def _output_name(self, mlp: Mlp) -> str:
        if mlp.expert is not None:
            return f"{mlp.path}.{_EXPERT_LAYERS[2]}.weight"
        return f"{mlp.module}.{mlp.kind.down}.weight"

    def _stacked(self, mlp: Mlp) -> str:
        return f"{mlp.module}.{mlp.kind.down}"

    def saved_again(self, dtype: torch.dtype) -> int:
        """Bytes of the experts that the files have one by one, not stacked as the model takes them.

        Where layers stay on the disk, those are saved there in the form of the model.
        """
        apart = [mlp for mlp in self.mlps if mlp.expert is not None and self._stacked(mlp) not in self._stored]
        return dtype.itemsize * sum(self.input_values(mlp) + self.down_values(mlp) for mlp in apart)

    def read_from(self, checkpoint: Checkpoint) -> Original:
        """The same architecture with the tensors of another checkpoint, whole or not, by the same names."""
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


def layer_of(name: str) -> int | None:
    """Number of the decoder layer that a tensor or module belongs to, None for one outside of all layers."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _pair(mlp: Mlp) -> tuple[str, str]:
    return mlp.kind.gate, mlp.kind.down


def model_config(place: Path) -> Any:
    """The transformers config of a model folder; `BadInput` when it is missing or names code of its own."""
    path = place / "config.json"
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "point `source` at a complete model folder") from error
    model_type = document.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        raise BadInput(
            f"{path}: model type `{model_type}` is not one that transformers {transformers.__version__} knows",
            "release a model whose architecture is part of transformers",
        )
    if "quantization_config" in document:
        raise BadInput(f"{path}: the checkpoint is quantised", "release the unquantised checkpoint, or a GGUF file")
    try:
        return AutoConfig.from_pretrained(place, local_files_only=True)
    except (StrictDataclassError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path} is refused by transformers: {reason}", "correct the config of the source") from error


def expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the model must find, tied ones left out; `BadInput` for no causal LM."""
    try:
        # transformers sets the dtype of the model for the whole process meanwhile: two threads that do so at once would
        # leave it set. It puts it into the config, too.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    except ValueError as error:
        raise BadInput(
            f"architecture `{config.model_type}` is no causal language model of transformers",
            "release a decoder-only text model",
        ) from error
    tied = set(model.all_tied_weights_keys)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
