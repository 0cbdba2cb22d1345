"""Convert a checkpoint: the same model with stacked Taylor terms in place of the MLP output weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taylor_ops.architectures import Architecture, Mlp
from taylor_ops.bound import Bound
from taylor_ops.by_rows import ByRows
from taylor_ops.checkpoint import gather_shards, write_shards
from taylor_ops.config import Conversion
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.files import (
    canonical_json,
    folder_that_appears_whole,
    read_json,
    require_free,
    scratch_beside,
    write_text,
)
from taylor_ops.modeling.taylor_mlp import INTERVAL_PARAMETERS, install
from taylor_ops.models import DTYPES
from taylor_ops.original import MlpWeights, Original
from taylor_ops.plan import Expansions, Layout, Plan, terms
from taylor_ops.records import Record
from taylor_ops.source import tokenizer_files

Progress = Callable[[int, int], None]

_PART_VALUES = 64 << 20

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
    """What became of one MLP.

    truncation, rounding: parts of the a-priori bound on the error of its output, as fractions of its median norm over
    the calibration text.
    """

    path: str
    neurons: int
    columns: int
    mean_order: float
    max_order: int
    truncation: float
    rounding: float

    @property
    def bound(self) -> float:
        """Truncation and rounding together."""
        return self.truncation + self.rounding


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


def expansions_of(original: Original, ranges_file: Path, conversion: Conversion) -> Expansions:
    """The expansions of a model from its captured ranges."""
    return Expansions(ranges_file, original.activation, conversion)


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


class _Converted(Record):
    """What is known of a part that is finished."""

    layers: tuple[LayerConversion, ...]
    widths: dict[str, list[int]]


def parts_of(original: Original, plan: Plan) -> list[Part]:
    """The parts of a converted model, in the order of its layers: as many layers together as are still small."""
    layers: dict[str, Part] = {"": Part()}
    for mlp in original.mlps:
        part = layers.setdefault(_decoder_layer(mlp.module), Part())
        part.mlps.append(mlp)
        part.values += original.down_values(mlp) * plan.columns / plan.neurons
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


def convert(
    source: Path,
    ranges_file: Path,
    plan: Plan,
    conversion: Conversion,
    folder: Path,
    progress: Progress,
    kept: Path | None = None,
) -> ConvertedModel:
    """Write the converted model into `folder`, whole or not at all; one part is in memory at a time.

    kept: folder in which finished layers stay until all are, so that a run that was killed goes on at the next one. It
    belongs to these inputs alone; the caller sees to that.
    """
    original = Original(source)
    expansions = expansions_of(original, ranges_file, conversion)
    parts = parts_of(original, plan)
    with ExitStack() as stack:
        work = kept or Path(stack.enter_context(scratch_beside(folder)))
        folders = [work / f"{number:05}" for number in range(len(parts))]
        left = sum(part.values for part, there in zip(parts, folders, strict=True) if not there.exists())
        require_free(work, int(left) * DTYPES[conversion.dtype].itemsize)
        made = []
        for number, part in enumerate(parts):
            made.append(_converted_part(original, expansions, plan, conversion, part, folders[number]))
            progress(number + 1, len(parts))
        layers = [layer for one in made for layer in one.layers]
        widths = {path: width for one in made for path, width in one.widths.items()}
        with folder_that_appears_whole(folder) as partial:
            written = gather_shards(partial, folders)
            tokenizer_files(source, partial)
            _write_code(partial, original.architecture)
            _write_config(original, partial, plan, widths, conversion.dtype)
    total = sum(layer.neurons for layer in layers)
    return ConvertedModel(
        plan=plan,
        neurons_protected=total,
        neurons_total=total,
        bytes=written,
        original_bytes=original.bytes(DTYPES[conversion.dtype]),
        layers=tuple(layers),
    )


def _converted_part(
    original: Original, expansions: Expansions, plan: Plan, conversion: Conversion, part: Part, folder: Path
) -> _Converted:
    """Write the shards of one part into `folder`, or find them there, whole."""
    done = folder / "part.json"
    if done.exists():
        return _Converted.read(done)
    layers: list[LayerConversion] = []
    widths: dict[str, list[int]] = {}

    def note(path: str, stacked: Layout) -> None:
        widths[path] = stacked.widths
        layers.append(_summary(path, stacked, expansions.bound(path, plan)))

    with folder_that_appears_whole(folder) as partial:
        tensors = _part_tensors(original, expansions, plan, DTYPES[conversion.dtype], part, note)
        write_shards(partial, tensors, conversion.shard_bytes)
        result = _Converted(layers=tuple(layers), widths=widths)
        result.write(partial / done.name)
    return result


def converted_tensors(
    original: Original, expansions: Expansions, plan: Plan, dtype_name: str
) -> Iterator[tuple[str, Tensor | ByRows]]:
    """Names and tensors of the whole converted model, made one by one."""
    for part in parts_of(original, plan):
        yield from _part_tensors(original, expansions, plan, DTYPES[dtype_name], part, lambda _path, _layout: None)


def _part_tensors(
    original: Original,
    expansions: Expansions,
    plan: Plan,
    dtype: torch.dtype,
    part: Part,
    note: Callable[[str, Layout], None],
) -> Iterator[tuple[str, Tensor | ByRows]]:
    """Names and tensors of one part, made one by one; `note` is told the layout of each MLP."""
    for name in part.names:
        yield name, _cast(original.tensor(name), dtype)
    for mlp in part.mlps:
        stacked = expansions.layout(mlp.path, plan)
        for name, tensor in _mlp_tensors(original.weights(mlp), stacked, dtype).items():
            yield f"{mlp.path}.{name}", tensor
        note(mlp.path, stacked)
    if original.mlps[0] in part.mlps:
        yield original.guard, torch.zeros(1, dtype=dtype)


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a model with Taylor MLPs."""
    try:
        return "taylor_mlp" in read_json(folder / "config.json")
    except (OSError, ValueError):
        return False


def mlp_tensors(weights: MlpWeights, stacked: Layout, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of one Taylor MLP by name: input layers in the new order of neurons, terms and intervals."""
    tensors = _mlp_tensors(weights, stacked, dtype)
    return {name: tensor.whole() if isinstance(tensor, ByRows) else tensor for name, tensor in tensors.items()}


def _mlp_tensors(weights: MlpWeights, stacked: Layout, dtype: torch.dtype) -> dict[str, Tensor | ByRows]:
    inputs = {
        "gate.weight": weights.gate,
        "gate.bias": weights.gate_bias,
        "up.weight": weights.up,
        "up.bias": weights.up_bias,
    }
    tensors: dict[str, Tensor | ByRows] = {
        name: _cast(tensor[stacked.permutation], dtype) for name, tensor in inputs.items() if tensor is not None
    }
    tensors["terms.weight"] = terms(weights.down, stacked, dtype)
    if weights.down_bias is not None:
        tensors["terms.bias"] = _cast(weights.down_bias, dtype)
    return tensors | {name: getattr(stacked, name).to(dtype) for name in INTERVAL_PARAMETERS}


def convert_in_memory(model: Any, original: Original, expansions: Expansions, plan: Plan) -> Any:
    """Put Taylor MLPs under `plan` into a loaded original, in place: what a candidate of the calibration is."""
    dtype, device = model.dtype, model.device
    stacked = {mlp.path: expansions.layout(mlp.path, plan) for mlp in original.mlps}
    with torch.device("meta"):
        install(model, taylor_entry(original, plan, {path: one.widths for path, one in stacked.items()}))
    for mlp in original.mlps:
        tensors = mlp_tensors(original.weights(mlp), stacked[mlp.path], dtype)
        on_device = {name: tensor.contiguous().to(device) for name, tensor in tensors.items()}
        model.get_submodule(mlp.path).load_state_dict(on_device, assign=True, strict=False)
    path, _, name = original.guard.rpartition(".")
    guard = torch.nn.Parameter(torch.zeros(1, dtype=dtype, device=device), requires_grad=False)
    model.get_submodule(path).register_parameter(name, guard)
    unfilled = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if unfilled:
        raise WorkFailed(f"tensor {unfilled[0]} of a candidate was not made", "this is a defect of the conversion")
    return model.eval()


def taylor_entry(original: Original, plan: Plan, widths: Mapping[str, list[int]]) -> dict[str, Any]:
    """The `taylor_mlp` entry of a bundle's config: what `taylor_mlp.install` needs."""
    kinds = {(mlp.kind.up is not None, tuple(original.biases(mlp))) for mlp in original.mlps}
    if len(kinds) != 1:
        raise BadInput(
            f"the MLPs of `{original.architecture.model_type}` differ in gates or biases from layer to layer",
            "release a model whose layers have MLPs of one form",
        )
    ((gated, biases),) = kinds
    down = original.shapes[original.guard]
    return {
        "basis": plan.basis,
        "activation": original.activation.name,
        "hidden_size": down[-1] if original.mlps[0].kind.transposed else down[-2],
        "gated": gated,
        "biases": list(biases),
        "experts": sorted({mlp.module for mlp in original.mlps if mlp.kind.experts}),
        "bypassed": [path for mlp in original.mlps for path in mlp.bypassed],
        "layers": dict(widths),
        "guard": original.guard,
    }


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _summary(path: str, stacked: Layout, bound: Bound) -> LayerConversion:
    return LayerConversion(
        path=path,
        neurons=len(stacked.permutation),
        columns=len(stacked.neuron),
        mean_order=float(stacked.orders.double().mean()),
        max_order=int(stacked.orders.max()),
        truncation=float(bound.truncation),
        rounding=float(bound.rounding),
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


def _write_config(original: Original, folder: Path, plan: Plan, widths: dict[str, list[int]], dtype: str) -> None:
    config = read_json(original.folder / "config.json")
    for local in ("_name_or_path", "_model_name_or_path", "torch_dtype"):
        config.pop(local, None)
    config |= {
        # A model type that transformers does not know: without the code of the bundle nothing can load it by mistake.
        "model_type": f"taylor_{original.architecture.model_type}",
        "architectures": ["TaylorForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_taylor.TaylorConfig",
            "AutoModelForCausalLM": "modeling_taylor.TaylorForCausalLM",
        },
        "dtype": dtype,
        "taylor_mlp": taylor_entry(original, plan, widths),
    }
    write_text(folder / "config.json", canonical_json(config))
