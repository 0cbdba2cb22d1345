"""Measure each MLP on held-out prompts: activations outside of its captured ranges, and the error of its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_TOKENS, _TOKENS_OF_A_PASS = 1024, 128
_TOKENS_BETWEEN_SINGLE_ONES = 32
_ARITHMETIC = 8


@dataclass(frozen=True)
class Limits:
    """The captured and the widened ranges of one MLP on a device, each float32 [F]. `factor` is widened."""

    low: Tensor
    high: Tensor
    widened_low: Tensor
    widened_high: Tensor
    factor: Tensor

    @classmethod
    def of(cls, captured: LayerRange, margin: float, device: torch.device) -> Limits:
        """The limits of one MLP on a device."""
        low, high, factor = widened(captured, margin)
        parts = captured.low, captured.high, low, high, factor
        return cls(*(part.float().to(device) for part in parts))


def limits_of(captured: Mapping[str, LayerRange], margin: float, device: torch.device) -> dict[str, Limits]:
    """The limits of each MLP by its path. `margin` is how far the ranges are widened, as a share of the range."""
    return {path: Limits.of(ranges, margin, device) for path, ranges in captured.items()}


class RangeCounts:
    """Counts the pre-activations of an original that lie outside of its ranges.

    `see` is for `mlp_hooks.watched`. The counts stay on the device until `use` is asked for.
    """

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._limits = limits
        self._total = 0
        self._outside: list[Tensor] = []

    def see(self, path: str, role: Role, z: Tensor) -> None:
        """Take the values [T, F] of one role of an MLP at T tokens."""
        if role == "pre_activation":
            limit = self._limits[path]
            captured = ((z < limit.low) | (z > limit.high)).sum()
            widened = ((z < limit.widened_low) | (z > limit.widened_high)).sum()
            self._total += z.numel()
            self._outside.append(torch.stack([captured, widened]))

    def use(self) -> RangeUse:
        """All that was counted."""
        captured, widened = torch.stack(self._outside).sum(0).tolist() if self._outside else (0, 0)
        return RangeUse(activations=self._total, outside_captured=captured, outside_widened=widened)


class LayerErrors:
    """Measures the error of each MLP of a bundle on the inputs that the MLPs of the original get.

    `see` is for `mlp_hooks.watched` around passes of the original. Each MLP is measured at no more than 128 tokens of
    a pass, which lie evenly in it, until it was measured at 1024. It gets every 32nd of them, from the last one of a
    pass backwards, a second time on its own: a decode step may take another way through the layer. The larger error
    counts.

    Args:
        bundle: The bundle, loaded.
        captured: The captured ranges by the path of the MLP.
        limits: The limits of the same ranges.
        paths: Paths of the MLPs.
    """

    def __init__(
        self, bundle: Any, captured: Mapping[str, LayerRange], limits: Mapping[str, Limits], paths: Sequence[str]
    ) -> None:
        self._bundle, self._captured, self._limits = bundle, captured, limits
        self._left = dict.fromkeys(paths, _TOKENS)
        self._inputs: dict[str, Tensor] = {}
        self._inside: dict[str, Tensor] = {}
        self._measured: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in paths}

    def see(self, path: str, role: Role, values: Tensor) -> None:
        """Take the values [T, H] or [T, F] of one role of an MLP at T tokens."""
        limit, values = self._limits[path], _spread(values, min(self._left[path], _TOKENS_OF_A_PASS))
        if not len(values):
            return
        if role == "input":
            self._inputs[path] = values
            self._inside[path] = torch.ones(len(values), dtype=torch.bool, device=values.device)
        elif role == "pre_activation":
            self._inside[path] &= ((values >= limit.widened_low) & (values <= limit.widened_high)).all(-1)
        elif role == "factor":
            self._inside[path] &= (values.abs() <= limit.factor).all(-1)
        else:
            hidden, mlp = self._inputs.pop(path), self._bundle.get_submodule(path)
            error = _distances(mlp(hidden), values)
            for token in range(len(values) - 1, -1, -_TOKENS_BETWEEN_SINGLE_ONES):
                alone = slice(token, token + 1)
                error[alone] = torch.maximum(error[alone], _distances(mlp(hidden[alone]), values[alone]))
            self._measured[path].append((error / self._captured[path].output_norm, self._inside.pop(path)))
            self._left[path] -= len(values)

    def errors(self) -> tuple[LayerError, ...]:
        """The errors of all MLPs, in the order of their paths."""
        return tuple(_layer_error(path, pairs) for path, pairs in self._measured.items())


def layer_errors(
    original: Any,
    bundle: Any,
    mlps: Sequence[Mlp],
    captured: Mapping[str, LayerRange],
    margin: float,
    prompts: Sequence[Sequence[int]],
) -> tuple[LayerError, ...]:
    """The `LayerErrors` of a bundle while the original reads about 1024 tokens of `prompts`, one by one.

    Args:
        original: The original, loaded.
        bundle: The bundle, loaded.
        mlps: The MLPs of the original.
        captured: The captured ranges by the path of the MLP.
        margin: How far the ranges are widened, as a share of the range.
        prompts: The tokens of held-out prompts.
    """
    limits = limits_of(captured, margin, original.device)
    measured = LayerErrors(bundle, captured, limits, [mlp.path for mlp in mlps])
    tokens_left = _TOKENS
    with watched(original, mlps, measured.see), torch.inference_mode():
        for tokens in prompts:
            if tokens_left <= 0:
                break
            ids = torch.tensor([tokens[:tokens_left]], device=original.device)
            original(input_ids=ids, use_cache=False, logits_to_keep=1)
            tokens_left -= ids.shape[1]
    return measured.errors()


def _spread(values: Tensor, most: int) -> Tensor:
    """At most so many rows of values [T, ...], evenly from the last one backwards."""
    if not most or not len(values):
        return values[:0]
    between = -(-len(values) // most)
    return values[(len(values) - 1) % between :: between]


def _distances(output: Tensor, expected: Tensor) -> Tensor:
    """Norms [T] of the differences between outputs [T, H], in float32."""
    norms: Tensor = torch.linalg.vector_norm(output.float() - expected.float(), dim=-1)
    return norms


def _layer_error(path: str, pairs: Sequence[tuple[Tensor, Tensor]]) -> LayerError:
    """The error of one MLP from the errors [T] of its tokens and whether these are inside of the ranges [T]."""
    if not pairs:
        return LayerError(path=path, tokens=0, tokens_inside=0, largest=0.0, inside=None)
    error, inside = (torch.cat(parts) for parts in zip(*pairs, strict=True))
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
