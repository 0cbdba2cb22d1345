"""Captured ranges as data: what a capture leaves of each MLP, and how it is read and widened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from taylor_ops.series.bound import OutputWeights

KEYS = ("low", "high", "factor", "output_norm", "norms", "peaks", "rows", "alignment")


@dataclass(frozen=True)
class LayerRange:
    """What was captured of one MLP.

    low, high: [F] float64, least and largest pre-activation z. factor: [F] float64, largest |u|, 1 without gate.
    output_norm: median L2 norm of the output. weights: measures of the output weights.
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


def _layer_range(kept: dict[str, Tensor]) -> LayerRange:
    weights = OutputWeights(kept["norms"], kept["peaks"], int(kept["rows"]), float(kept["alignment"]))
    return LayerRange(kept["low"], kept["high"], kept["factor"], float(kept["output_norm"]), weights)


def widened(captured: LayerRange, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Low, high and factor [F] of a captured range, each widened by `margin`: what a bound is for."""
    width = captured.high - captured.low
    return captured.low - margin * width, captured.high + margin * width, captured.factor * (1 + margin)


def _layer_number(path: str) -> tuple[int, ...]:
    return tuple(int(part) for part in path.split(".") if part.isdigit())
