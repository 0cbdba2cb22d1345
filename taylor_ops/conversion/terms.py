"""The terms: output weights times the coefficients of a series, in place of the output weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise
from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.conversion.parts import Part, parts_of
from taylor_ops.machine.devices import CPU, DTYPES
from taylor_ops.machine.pinned_copies import on_host
from taylor_ops.model.original import MlpWeights, Original
from taylor_ops.model.row_blocks import ByRows
from taylor_ops.modeling.taylor_mlp import INTERVAL_PARAMETERS
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.layout import Layout
from taylor_ops.series.plan import Plan


@dataclass(frozen=True)
class Subject:
    """The inputs of a conversion: an original, the file of its captured ranges, and how it is to be converted."""

    original: Original
    ranges_file: Path
    conversion: Conversion

    def expansions(self) -> Expansions:
        """The expansions of every neuron. Each layer is fitted on demand."""
        return Expansions(self.ranges_file, self.original.activation, self.conversion)


def converted_tensors(
    original: Original, expansions: Expansions, plan: Plan, dtype_name: str
) -> Iterator[tuple[str, Tensor | ByRows]]:
    """Names and tensors of the whole converted model, made one by one."""
    for part in parts_of(original, plan):
        yield from part_tensors(original, expansions, plan, DTYPES[dtype_name], part, lambda _path, _layout: None)


def part_tensors(
    original: Original,
    expansions: Expansions,
    plan: Plan,
    dtype: torch.dtype,
    part: Part,
    note: Callable[[str, Layout], None],
    device: torch.device = CPU,
) -> Iterator[tuple[str, Tensor | ByRows]]:
    """Names and tensors of one part, made one by one. `note` receives the path and the layout of each MLP."""
    for name in part.names:
        yield name, _cast(original.tensor(name), dtype)
    for mlp in part.mlps:
        stacked = expansions.layout(mlp.path, plan)
        for name, tensor in mlp_tensors_by_rows(original.weights(mlp), stacked, dtype, device).items():
            yield f"{mlp.path}.{name}", tensor
        note(mlp.path, stacked)
    if original.mlps[0] in part.mlps:
        yield original.guard, torch.zeros(1, dtype=dtype)


def mlp_tensors(weights: MlpWeights, stacked: Layout, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of one Taylor MLP by name: input layers in the new order of neurons, terms and intervals."""
    tensors = mlp_tensors_by_rows(weights, stacked, dtype)
    return {name: tensor.whole() if isinstance(tensor, ByRows) else tensor for name, tensor in tensors.items()}


def mlp_tensors_by_rows(
    weights: MlpWeights, stacked: Layout, dtype: torch.dtype, device: torch.device = CPU
) -> dict[str, Tensor | ByRows]:
    """The tensors of `mlp_tensors`, with the terms made on `device`, a few rows at a time."""
    inputs = {
        "gate.weight": weights.gate,
        "gate.bias": weights.gate_bias,
        "up.weight": weights.up,
        "up.bias": weights.up_bias,
    }
    tensors: dict[str, Tensor | ByRows] = {
        name: _cast(tensor[stacked.permutation], dtype) for name, tensor in inputs.items() if tensor is not None
    }
    tensors["terms.weight"] = terms(weights.down, stacked, dtype, device)
    if weights.down_bias is not None:
        tensors["terms.bias"] = _cast(weights.down_bias, dtype)
    return tensors | {name: getattr(stacked, name).to(dtype) for name in INTERVAL_PARAMETERS}


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


# Few enough terms to stay in the cache of the processor until they are written, and enough for several threads.
_VALUES_AT_ONCE = 1 << 22


def terms(weight: Tensor, stacked: Layout, dtype: torch.dtype, device: torch.device = CPU) -> ByRows:
    """Theta [H, K] in `dtype` from output weights [H, F]: column k is `coefficient[k] * weight[:, neuron[k]]`.

    The weights are rounded to `dtype` first, as in the original with which the bundle is compared. Products are
    computed in float64 on `device` and rounded once, by the rules of IEEE 754, so that every device gives the same
    bytes. The blocks are on the CPU.
    """
    height, width = weight.shape[0], len(stacked.neuron)
    ends = list(accumulate(stacked.widths, initial=0))
    at_once = max(1, _VALUES_AT_ONCE // width)

    def blocks() -> Iterator[Tensor]:
        permutation, coefficient = stacked.permutation.to(device), stacked.coefficient.to(device)
        on_device = weight.to(device)
        buffers = cycle([torch.empty(min(at_once, height), width, dtype=dtype, device=device) for _ in range(2)])
        for start, buffer in zip(range(0, height, at_once), buffers, strict=False):
            # In this arrangement the neurons of every order come first. They are fetched once, not for each column.
            rows = on_device[start : start + at_once].to(dtype).index_select(1, permutation).double()
            block = buffer[: len(rows)]
            for begin, end in pairwise(ends):
                torch.mul(rows[:, : end - begin], coefficient[begin:end], out=block[:, begin:end])
            block[:, ends[-1] :] = rows[:, stacked.widths[0] :]
            yield block

    return ByRows((height, width), dtype, blocks if device.type == "cpu" else lambda: on_host(blocks(), device))
