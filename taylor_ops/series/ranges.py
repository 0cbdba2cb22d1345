"""Captured ranges as data: what a capture stores for each MLP, and how to read and widen it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from taylor_ops.series.bound import OutputWeights

KEYS = ("low", "high", "factor", "output_norm", "norms", "peaks", "rows", "alignment")


@dataclass(frozen=True)
class LayerRange:
    """The captured ranges of one MLP.

    Attributes:
        low: [F] float64, least pre-activation z.
        high: [F] float64, largest pre-activation z.
        factor: [F] float64, largest |u|, 1 without a gate.
        output_norm: Median L2 norm of the output.
        weights: Measures of the output weights.
    """

    low: Tensor
    high: Tensor
    factor: Tensor
    output_norm: float
    weights: OutputWeights


def read_ranges(file: Path) -> dict[str, LayerRange]:
    """The captured ranges by MLP path, in the order of the layers."""
    tensors = load_file(file)
    paths = sorted({name.rpartition(".")[0] for name in tensors}, key=_layer_number)
    return {path: _layer_range({key: tensors[f"{path}.{key}"].double() for key in KEYS}) for path in paths}


def _layer_range(values: dict[str, Tensor]) -> LayerRange:
    weights = OutputWeights(values["norms"], values["peaks"], int(values["rows"]), float(values["alignment"]))
    return LayerRange(values["low"], values["high"], values["factor"], float(values["output_norm"]), weights)


def widened(captured: LayerRange, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Low, high and factor [F] of a captured range, each widened by `margin`. A bound holds for these ranges."""
    width = captured.high - captured.low
    return captured.low - margin * width, captured.high + margin * width, captured.factor * (1 + margin)


def _layer_number(path: str) -> tuple[int, ...]:
    return tuple(int(part) for part in path.split(".") if part.isdigit())
