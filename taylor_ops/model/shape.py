"""What the config of a model says without its weights: shapes of tensors, layers, positions."""

from __future__ import annotations

import copy
import math
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from taylor_ops.errors import BadInput
from taylor_ops.model.architectures import Architecture, Mlp, architecture_of, mlps_of
from taylor_ops.model.config_errors import config_errors_named, in_one_line, require_countable, require_known_attention
from taylor_ops.model.stored_names import StoredNames
from taylor_ops.series.activations import Activation, activation_named
from taylor_ops.storage.files import read_json

_SHARED_BY_LAYERS = ("num_kv_shared_layers", "hidden_size_per_layer_input")


class ModelShape:
    """What the config of a model folder says without its weights: architecture, MLPs, and the shape of every tensor.

    Tensors have the names of the modules of transformers. Raises `BadInput` if the config or the architecture is
    unusable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = model_config(folder)
        path = folder / "config.json"
        with config_errors_named(path, read_json(path)):
            self.shapes, self.stored_names = shapes_and_names(self.config)
            self.architecture: Architecture = architecture_of(self.config, self.shapes)
            self.mlps: list[Mlp] = mlps_of(self.architecture, self.shapes)

    @cached_property
    def period(self) -> int:
        """Number of decoder layers of the smallest model whose layers stand for all layers of this model.

        The first layers of a model can stand alone if their number is a multiple of the period. All layers repeat the
        types in `layer_types` and the tensors of the layers in one period. In some models, for example, only every
        second layer has experts. The period is the number of all layers, so that there is no smaller model, if some
        layers take keys and values of others, or if one tensor has the embeddings for each layer.
        """
        config, count = self.config, int(self.config.num_hidden_layers)
        if any(getattr(config, key, None) for key in _SHARED_BY_LAYERS):
            return count
        tensors: dict[int, set[tuple[str, tuple[int, ...]]]] = {number: set() for number in range(count)}
        for name, shape in self.shapes.items():
            number = layer_of(name)
            if number in tensors:
                tensors[number].add((name.partition(f".{number}.")[2], shape))
        layer_types = getattr(config, "layer_types", None) or [None] * count
        types = list(zip(layer_types, map(frozenset, tensors.values()), strict=True))
        for length in range(1, count // 2 + 1):
            repeats = count // length
            if types[: repeats * length] == types[:length] * repeats and set(types) == set(types[:length]):
                return length
        return count

    def first_layers(self, count: int) -> Self:
        """The same model with only its first `count` decoder layers: a multiple of `period`, or all."""
        shallow = copy.copy(self)
        depth = self.config.num_hidden_layers
        shallow.config = copy.deepcopy(self.config)
        for name, value in self.config.to_dict().items():
            if isinstance(value, list) and len(value) == depth:
                setattr(shallow.config, name, value[:count])
        shallow.config.num_hidden_layers = count
        shallow.shapes = {name: shape for name, shape in self.shapes.items() if (layer_of(name) or 0) < count}
        shallow.mlps = [mlp for mlp in self.mlps if (layer_of(mlp.module) or 0) < count]
        return shallow

    @property
    def activation(self) -> Activation:
        """The activation of the MLPs."""
        return activation_named(getattr(self.config, self.architecture.activation))

    def names(self) -> list[str]:
        """Names of all tensors that are not weights of an MLP, sorted."""
        own = {f"{mlp.module}.{layer}" for mlp in self.mlps for layer in (mlp.kind.gate, mlp.kind.up, mlp.kind.down)}
        return sorted(name for name in self.shapes if name not in own and name.rpartition(".")[0] not in own)

    @property
    def guard(self) -> str:
        """Name of the output weights of the first MLP, under which a bundle stores a tensor of another size."""
        first = self.mlps[0]
        return f"{first.module}.{first.kind.down}" + ("" if first.kind.experts else ".weight")

    def down_values(self, mlp: Mlp) -> int:
        """How many output weights an MLP has."""
        if mlp.kind.experts:
            return math.prod(self.shapes[f"{mlp.module}.{mlp.kind.down}"][1:])
        return math.prod(self.shapes[f"{mlp.module}.{mlp.kind.down}.weight"])

    def input_values(self, mlp: Mlp) -> int:
        """How many weights and biases the layers of an MLP have that make z and u."""
        kind = mlp.kind
        if kind.experts:
            return math.prod(self.shapes[f"{mlp.module}.{kind.gate}"][1:])
        layers = {kind.gate, kind.up} - {None}
        names = [f"{mlp.module}.{layer}.{tensor}" for layer in layers for tensor in ("weight", "bias")]
        return sum(math.prod(self.shapes[name]) for name in names if name in self.shapes)

    def biases(self, mlp: Mlp) -> list[str]:
        """Which of the layers gate, up and terms of the Taylor MLP that replaces `mlp` have a bias."""
        layers = {"gate": mlp.kind.gate, "up": mlp.kind.up, "terms": mlp.kind.down}
        return [role for role, layer in layers.items() if f"{mlp.module}.{layer}.bias" in self.shapes]

    def layer_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of the tensors of all decoder layers in `dtype`."""
        inside = (shape for name, shape in self.shapes.items() if layer_of(name) is not None)
        return dtype.itemsize * sum(math.prod(shape) for shape in inside)

    def bytes(self, dtype: torch.dtype) -> int:
        """Bytes of all tensors of the model in `dtype`."""
        return dtype.itemsize * sum(torch.Size(shape).numel() for shape in self.shapes.values())


def layer_of(name: str) -> int | None:
    """Number of the decoder layer that a tensor or module belongs to, or None if it is outside of all layers."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def model_config(place: Path) -> Any:
    """The transformers config of a model folder. Raises `BadInput` if it is missing or names code of its own."""
    path = place / "config.json"
    try:
        document = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "point `source` at a complete model folder") from error
    model_type = document.get("model_type")
    if not isinstance(model_type, str) or model_type not in transformers.CONFIG_MAPPING:
        raise BadInput(
            f"{path}: model type `{in_one_line(model_type)}` is not one that transformers {transformers.__version__} "
            "knows",
            "release a model whose architecture is part of transformers",
        )
    if document.get("transformers_weights") is not None:
        raise BadInput(
            f"{path}: `transformers_weights` names another file of weights than the usual ones",
            "remove the key, and name the file model.safetensors",
        )
    if document.get("configuration_files") is not None:
        raise BadInput(
            f"{path}: `configuration_files` names another config than this one",
            "remove the key, and name the file config.json",
        )
    if "quantization_config" in document:
        raise BadInput(f"{path}: the checkpoint is quantised", "release the unquantised checkpoint, or a GGUF file")
    require_countable(path, document)
    require_known_attention(path, document, ("eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()))
    with config_errors_named(path, document):
        return AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)


def expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model except tied ones. Raises `BadInput` for anything but a causal LM."""
    return shapes_and_names(config)[0]


def shapes_and_names(config: Any) -> tuple[dict[str, tuple[int, ...]], StoredNames]:
    """The same shapes, and how a checkpoint names the tensors. Raises `BadInput` for anything but a causal LM."""
    try:
        # transformers sets the default dtype of the whole process meanwhile, and two threads that do so at once would
        # leave it set. It also writes the dtype into the config.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=torch.float32, trust_remote_code=False
            )
    except ValueError as error:
        if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise
        raise BadInput(
            f"architecture `{config.model_type}` is not a causal language model of transformers",
            "release a decoder-only text model",
        ) from error
    names = StoredNames.of(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in names.tied}
    return shapes, names


def require_positions(source: ModelShape, key: str, tokens: int) -> None:
    """Raise `BadInput` if a model has fewer than `tokens` positions. The config of some models does not say how many.

    Args:
        source: The model.
        key: Key of the release config that asks for the tokens.
        tokens: How many tokens the model reads at once.
    """
    most = getattr(source.config, "max_position_embeddings", None)
    if isinstance(most, int) and 0 < most < tokens:
        raise BadInput(
            f"{key}: {tokens:,} tokens at once, but the model has {most:,} positions (`max_position_embeddings` of its "
            "config)",
            f"change that to {most:,} or less",
        )
