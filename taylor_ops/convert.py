"""Convert a checkpoint: the same model with stacked Taylor terms in place of the MLP output weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taylor_ops.activations import activation_named
from taylor_ops.architectures import Architecture, architecture_of
from taylor_ops.checkpoint import Checkpoint, write_shards
from taylor_ops.config import Conversion
from taylor_ops.files import canonical_json, folder_that_appears_whole, read_json, write_text
from taylor_ops.modeling.taylor_mlp import INTERVAL_PARAMETERS, install
from taylor_ops.models import DTYPES
from taylor_ops.plan import Expansions, Layout, Plan, terms
from taylor_ops.records import Record
from taylor_ops.source import model_config, tokenizer_files

Progress = Callable[[int, int], None]

_MODELING = '''\
"""Loads this Taylor MLP release of a {causal_lm}: transformers and torch are all it needs."""

from transformers import {config}, {causal_lm}

from .taylor_mlp import install


class TaylorConfig({config}):
    """The config of the original, with the layout of its Taylor MLPs in `taylor_mlp`."""

    model_type = "{model_type}"


class TaylorForCausalLM({causal_lm}):
    """The original architecture with Taylor MLPs."""

    config_class = TaylorConfig

    def __init__(self, config):
        super().__init__(config)
        install(self, config.taylor_mlp)
'''


class LayerConversion(Record):
    """What became of one MLP. error: largest truncation error of its activation inside the intervals."""

    path: str
    neurons: int
    columns: int
    mean_order: float
    max_order: int
    error: float


class ConvertedModel(Record):
    """A converted model in a folder: loadable, without card and manifest.

    neurons_protected of neurons_total have no output weights in the folder. bytes: of all tensors.
    """

    plan: Plan
    neurons_protected: int
    neurons_total: int
    bytes: int
    original_bytes: int
    layers: tuple[LayerConversion, ...]


def expansions_of(original: Path, ranges_file: Path, conversion: Conversion) -> Expansions:
    """The expansions of a model from its captured ranges."""
    config = model_config(original)
    activation = activation_named(getattr(config, architecture_of(config).activation))
    return Expansions(ranges_file, activation, conversion)


def convert(
    original: Path, ranges_file: Path, plan: Plan, conversion: Conversion, folder: Path, progress: Progress
) -> ConvertedModel:
    """Write the converted model into `folder`, whole or not at all; one layer is in memory at a time."""
    config = model_config(original)
    architecture = architecture_of(config)
    expansions = expansions_of(original, ranges_file, conversion)
    layers: list[LayerConversion] = []
    widths: dict[str, list[int]] = {}

    def note(path: str, stacked: Layout) -> None:
        widths[path] = stacked.widths
        layers.append(_summary(path, stacked))
        progress(len(layers), len(expansions.paths))

    tensors = converted_tensors(Checkpoint(original), architecture, expansions, plan, conversion.dtype, note)
    with folder_that_appears_whole(folder) as partial:
        written = write_shards(partial, tensors, conversion.shard_bytes)
        tokenizer_files(original, partial)
        _write_code(partial, architecture)
        _write_config(original, partial, architecture, plan, widths, conversion.dtype)
    total = sum(layer.neurons for layer in layers)
    return ConvertedModel(
        plan=plan,
        neurons_protected=total,
        neurons_total=total,
        bytes=written,
        original_bytes=original_bytes(original, conversion.dtype),
        layers=tuple(layers),
    )


def converted_tensors(
    checkpoint: Checkpoint,
    architecture: Architecture,
    expansions: Expansions,
    plan: Plan,
    dtype_name: str,
    note: Callable[[str, Layout], None] = lambda _path, _layout: None,
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the whole converted model, made one by one; `note` is told the layout of each MLP."""
    dtype = DTYPES[dtype_name]
    replaced = {f"{path}.{role}" for path in expansions.paths for role in architecture.roles().values() if role}
    for name in checkpoint.names():
        if name.rpartition(".")[0] not in replaced:
            yield name, _cast(checkpoint.tensor(name), dtype)
    for path in expansions.paths:
        stacked = expansions.layout(path, plan)
        yield from layer_tensors(checkpoint, architecture, path, stacked, dtype)
        note(path, stacked)


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a model with Taylor MLPs."""
    try:
        return "taylor_mlp" in read_json(folder / "config.json")
    except (OSError, ValueError):
        return False


def original_bytes(original: Path, dtype: str) -> int:
    """Bytes of all tensors of the original in `dtype`."""
    checkpoint = Checkpoint(original)
    size = torch.finfo(DTYPES[dtype]).bits // 8
    return sum(size * torch.Size(checkpoint.shape(name)).numel() for name in checkpoint.names())


def layer_tensors(
    checkpoint: Checkpoint, architecture: Architecture, path: str, stacked: Layout, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one converted MLP: input layers in the new order of neurons, terms, intervals and tails."""
    for role in (architecture.gate, architecture.up):
        for kind in ("weight", "bias"):
            name = f"{path}.{role}.{kind}"
            if role and name in checkpoint:
                yield name, _cast(checkpoint.tensor(name)[stacked.permutation], dtype)
    down = f"{path}.{architecture.down}"
    yield f"{down}.weight", terms(checkpoint.tensor(f"{down}.weight"), stacked, dtype)
    if f"{down}.bias" in checkpoint:
        yield f"{down}.bias", _cast(checkpoint.tensor(f"{down}.bias"), dtype)
    for name in INTERVAL_PARAMETERS:
        yield f"{path}.{name}", getattr(stacked, name).to(dtype)


def convert_in_memory(model: Any, expansions: Expansions, plan: Plan) -> Any:
    """Put Taylor MLPs under `plan` into a loaded original, in place: what a candidate of the calibration is."""
    architecture = architecture_of(model.config)
    for path in expansions.paths:
        stacked = expansions.layout(path, plan)
        mlp = model.get_submodule(path)
        weight = getattr(mlp, architecture.down).weight.data
        bias = getattr(mlp, architecture.down).bias
        install(model, taylor_entry(architecture, plan, {path: stacked.widths}))
        taylor = model.get_submodule(path)
        for role in (architecture.gate, architecture.up):
            if role:
                for parameter in getattr(taylor, role).parameters():
                    parameter.data = parameter.data[stacked.permutation.to(parameter.device)]
        down = getattr(taylor, architecture.down)
        down.weight.data = terms(weight.cpu(), stacked, weight.dtype).to(weight.device)
        if bias is not None:
            down.bias.data = bias.data
        for name in INTERVAL_PARAMETERS:
            getattr(taylor, name).data = getattr(stacked, name).to(weight.device, weight.dtype)
    return model


def taylor_entry(architecture: Architecture, plan: Plan, widths: Mapping[str, list[int]]) -> dict[str, Any]:
    """The `taylor_mlp` entry of a bundle's config."""
    return {"basis": plan.basis, "roles": dict(architecture.roles()), "layers": dict(widths)}


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _summary(path: str, stacked: Layout) -> LayerConversion:
    return LayerConversion(
        path=path,
        neurons=len(stacked.permutation),
        columns=len(stacked.neuron),
        mean_order=float(stacked.orders.double().mean()),
        max_order=int(stacked.orders.max()),
        error=stacked.error,
    )


def _write_code(folder: Path, architecture: Architecture) -> None:
    layer_code = (files("taylor_ops.modeling") / "taylor_mlp.py").read_text(encoding="utf-8")
    write_text(folder / "taylor_mlp.py", layer_code)
    model_code = _MODELING.format(
        causal_lm=architecture.causal_lm,
        config=architecture.config,
        model_type=f"taylor_{architecture.model_type}",
    )
    write_text(folder / "modeling_taylor.py", model_code)


def _write_config(
    original: Path, folder: Path, architecture: Architecture, plan: Plan, widths: dict[str, list[int]], dtype: str
) -> None:
    config = read_json(original / "config.json")
    for local in ("_name_or_path", "_model_name_or_path", "torch_dtype"):
        config.pop(local, None)
    config |= {
        # A model type that transformers does not know: without the code of the bundle nothing can load it by mistake.
        "model_type": f"taylor_{architecture.model_type}",
        "architectures": ["TaylorForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_taylor.TaylorConfig",
            "AutoModelForCausalLM": "modeling_taylor.TaylorForCausalLM",
        },
        "dtype": dtype,
        "taylor_mlp": taylor_entry(architecture, plan, widths),
    }
    write_text(folder / "config.json", canonical_json(config))
