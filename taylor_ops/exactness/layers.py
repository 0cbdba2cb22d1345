"""Measure each MLP on held-out prompts: activations outside of its captured ranges, and the error of its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taylor_ops.conversion.record import LayerConversion
from taylor_ops.errors import GateRejected
from taylor_ops.exactness.record import LayerError, RangeUse
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.mlp_hooks import Role, watched
from taylor_ops.series.ranges import LayerRange, widened

_TOKENS = 1024
_ARITHMETIC = 8


@dataclass(frozen=True)
class _Limits:
    """The captured and the widened ranges of one MLP on a device, each [F]. `factor` is widened."""

    low: Tensor
    high: Tensor
    widened_low: Tensor
    widened_high: Tensor
    factor: Tensor

    @classmethod
    def of(cls, captured: LayerRange, margin: float, device: torch.device) -> _Limits:
        low, high, factor = widened(captured, margin)
        parts = captured.low, captured.high, low, high, factor
        return cls(*(part.float().to(device) for part in parts))


@contextmanager
def range_use(
    model: Any, mlps: Sequence[Mlp], captured: Mapping[str, LayerRange], margin: float
) -> Iterator[list[RangeUse]]:
    """Count over all forward passes of an original while open. The list holds the result after the block."""
    limits = {path: _Limits.of(ranges, margin, model.device) for path, ranges in captured.items()}
    total = outside_captured = outside_widened = 0
    result: list[RangeUse] = []

    def see(path: str, role: Role, z: Tensor) -> None:
        nonlocal total, outside_captured, outside_widened
        if role == "pre_activation":
            limit = limits[path]
            total += z.numel()
            outside_captured += int(((z < limit.low) | (z > limit.high)).sum())
            outside_widened += int(((z < limit.widened_low) | (z > limit.widened_high)).sum())

    with watched(model, mlps, see):
        yield result
    result.append(RangeUse(activations=total, outside_captured=outside_captured, outside_widened=outside_widened))


def layer_errors(
    original: Any,
    bundle: Any,
    mlps: Sequence[Mlp],
    captured: Mapping[str, LayerRange],
    margin: float,
    prompts: Sequence[Sequence[int]],
) -> tuple[LayerError, ...]:
    """Measure the error of each MLP of the bundle on the inputs that the MLPs of the original get.

    The original reads about 1024 tokens of `prompts`. Each MLP of the bundle gets the last token of every prompt a
    second time, on its own. The larger error counts.

    Args:
        original: The original, loaded.
        bundle: The bundle, loaded.
        mlps: The MLPs of the original.
        captured: The captured ranges by the path of the MLP.
        margin: How far the ranges are widened, as a share of the range.
        prompts: The tokens of held-out prompts.
    """
    limits = {path: _Limits.of(ranges, margin, original.device) for path, ranges in captured.items()}
    inputs: dict[str, Tensor] = {}
    inside: dict[str, Tensor] = {}
    measured: dict[str, list[tuple[Tensor, Tensor]]] = {mlp.path: [] for mlp in mlps}

    def see(path: str, role: Role, values: Tensor) -> None:
        limit = limits[path]
        if role == "input":
            inputs[path], inside[path] = values, torch.ones(len(values), dtype=torch.bool, device=values.device)
        elif role == "pre_activation":
            inside[path] &= ((values >= limit.widened_low) & (values <= limit.widened_high)).all(-1)
        elif role == "factor":
            inside[path] &= (values.abs() <= limit.factor).all(-1)
        else:
            hidden, mlp = inputs.pop(path), bundle.get_submodule(path)
            error = _distances(mlp(hidden), values)
            # The last token is also measured on its own: a decode step may take another way through the layer.
            error[-1:] = torch.maximum(error[-1:], _distances(mlp(hidden[-1:]), values[-1:]))
            measured[path].append((error / captured[path].output_norm, inside.pop(path)))

    tokens_left = _TOKENS
    with watched(original, mlps, see), torch.inference_mode():
        for tokens in prompts:
            if tokens_left <= 0:
                break
            ids = torch.tensor([tokens[:tokens_left]], device=original.device)
            original(input_ids=ids, use_cache=False, logits_to_keep=1)
            tokens_left -= ids.shape[1]
    return tuple(_layer_error(path, *map(torch.cat, zip(*pairs, strict=True))) for path, pairs in measured.items())


def _distances(output: Tensor, expected: Tensor) -> Tensor:
    """Norms [T] of the differences between outputs [T, H], in float32."""
    norms: Tensor = torch.linalg.vector_norm(output.float() - expected.float(), dim=-1)
    return norms


def _layer_error(path: str, error: Tensor, inside: Tensor) -> LayerError:
    within = error[inside]
    return LayerError(
        path=path,
        tokens=len(error),
        tokens_inside=len(within),
        largest=_largest(error) or 0.0,
        inside=_largest(within),
    )


def _largest(error: Tensor) -> float | None:
    return float(error.max()) if len(error) else None


def require_within_bounds(errors: Sequence[LayerError], layers: Sequence[LayerConversion]) -> None:
    """The gate of the a-priori bounds: inside of the widened ranges, no layer has an error above its bound.

    The bounds hold for exact arithmetic on stored terms. Arithmetic in the released dtype rounds every feature and
    every sum, in the original too. The gate allows it a few times what rounding of the stored terms may cost.

    Raises `GateRejected` with the first layer that exceeds its limit.
    """
    limits = {layer.path: layer.bound + _ARITHMETIC * layer.rounding for layer in layers}
    for error in errors:
        # Not `>`, which a NaN would pass.
        if error.inside is not None and not error.inside <= limits[error.path]:
            raise GateRejected(
                f"{error.path}: its output is wrong by {error.inside:.2g} of its median norm on held-out prompts, "
                f"but a-priori bound and arithmetic allow {limits[error.path]:.2g}",
                "the converted model is damaged or computes wrongly: remove its folder below `stages` and run again",
            )
