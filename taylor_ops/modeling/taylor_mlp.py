"""Taylor MLP layers: series parameters in place of the MLP output weights. Needs torch only.

Scheme: "Taylor Unswift" (TaylorMLP), arXiv 2410.05331. A gated MLP `y = W (phi(z) * u)` is computed as
`y = sum_n Theta_n (u * P_n(t))` with `t = (z - center) / radius` clamped to [-1, 1], one product over the stacked
terms Theta_n. Neurons are sorted by falling order, so that order n uses the first `widths[n]` of them. Outside its
interval phi bends towards its asymptotes, 0 on the left and the identity on the right; the term of order 0 or 1, each
a multiple of the output weights, carries that part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

INTERVAL_PARAMETERS = {"center": 0, "radius": 0, "carrier": 2, "bend": 2, "reach": 2}
"""Parameters per neuron that say where its series holds and how phi goes on outside, with their rows (0: a vector)."""

_FEATURE_BYTES = 32 << 20


def basis_features(
    basis: str, widths: Sequence[int], t: Tensor, factor: Tensor, out: Tensor | None = None
) -> list[Tensor]:
    """`factor * P_n(t)` for n = 0 .. len(widths) - 1, each [..., widths[n]], from `t` and `factor` [..., F].

    chebyshev: P_n = s_n T_n with s = + + - - + + ..., so that P_{n+1} = P_{n-1} +- 2 t P_n is one fused step.
    taylor: P_n = t^n. With `out` [..., sum(widths)] the features are written there, side by side.
    """
    places: Sequence[Tensor | None] = (
        [None] * len(widths) if out is None else torch.split_with_sizes(out, list(widths), dim=-1)
    )
    features = [torch.mul(factor, 1, out=places[0]), torch.mul(factor, t, out=places[1])]
    if basis == "chebyshev":
        t = 2 * t
    for n in range(2, len(widths)):
        k = widths[n]
        step, last = t[..., :k], features[n - 1][..., :k]
        if basis == "chebyshev":
            sign = 1 if n % 2 else -1
            features.append(torch.addcmul(features[n - 2][..., :k], step, last, value=sign, out=places[n]))
        else:
            features.append(torch.mul(step, last, out=places[n]))
    return features


class TaylorMLP(nn.Module):
    """An MLP whose output layer reads series features; its input layers keep the names they had.

    mlp: the original module, whose input layers are taken over.
    roles: the names of its layers, `gate` and `up` (or `up` None for a plain MLP) and `down`.
    widths: number of neurons that have a term of order n, falling; every neuron has orders 0 and 1.
    """

    center: Tensor
    radius: Tensor
    carrier: Tensor
    bend: Tensor
    reach: Tensor

    def __init__(self, mlp: nn.Module, roles: Mapping[str, Any], basis: str, widths: Sequence[int]) -> None:
        super().__init__()
        self.roles = dict(roles)
        self.basis = basis
        self.widths = list(widths)
        inputs = [name for name in (roles["gate"], roles["up"]) if name]
        for name in inputs:
            self.add_module(name, getattr(mlp, name))
        original = getattr(mlp, roles["down"])
        weight = original.weight
        terms = nn.Linear(
            sum(widths), original.out_features, bias=original.bias is not None, device="meta", dtype=weight.dtype
        )
        self.add_module(roles["down"], terms.to_empty(device=weight.device))
        for name, rows in INTERVAL_PARAMETERS.items():
            shape = (rows, widths[0]) if rows else (widths[0],)
            empty = torch.empty(shape, device=weight.device, dtype=weight.dtype)
            self.register_parameter(name, nn.Parameter(empty, requires_grad=False))

    def features(self, z: Tensor, factor: Tensor | None, out: Tensor | None = None) -> Tensor:
        """Series features [..., sum(widths)] float32 for pre-activations `z` and gate factors `factor` [..., F].

        They are written into `out` where it is given, which spares memory and time but has no gradient.
        """
        z = z.float()
        factor = torch.ones_like(z) if factor is None else factor.float()
        radius, bend, reach = self.radius.float(), self.bend.float(), self.reach.float()
        offset = z - self.center.float()
        inside = offset.clamp(-radius, radius)
        parts = basis_features(self.basis, self.widths, inside / radius, factor, out)
        beyond = offset - inside
        right, left = beyond.clamp(min=0), beyond.clamp(max=0)
        outside = right + bend[1] * right / (1 + right / reach[1]) + bend[0] * left / (1 - left / reach[0])
        outside = outside * factor
        for order in range(2):
            share = outside * self.carrier[order]
            parts[order] = parts[order] + share if out is None else parts[order].add_(share)
        return torch.cat(parts, dim=-1) if out is None else out

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Output [..., H] of the MLP for hidden states [..., H]."""
        gate, up = self.roles["gate"], self.roles["up"]
        down = getattr(self, self.roles["down"])
        flat = hidden_states.reshape(-1, hidden_states.shape[-1])
        z = getattr(self, gate)(flat)
        factor = getattr(self, up)(flat) if up else None
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            output: Tensor = down(self.features(z, factor).to(flat.dtype))
        else:
            output = self._in_chunks(z, factor, down, flat.dtype)
        return output.reshape(*hidden_states.shape[:-1], output.shape[-1])

    def _in_chunks(self, z: Tensor, factor: Tensor | None, down: nn.Module, dtype: torch.dtype) -> Tensor:
        """The output for rows of `z` a few at a time, through one buffer: features are many times the input."""
        rows = max(1, min(len(z), _FEATURE_BYTES // (4 * sum(self.widths))))
        buffer = torch.empty(rows, sum(self.widths), device=z.device, dtype=torch.float32)
        parts: list[Tensor] = []
        for start in range(0, max(1, len(z)), rows):
            chunk = z[start : start + rows]
            gates = None if factor is None else factor[start : start + rows]
            parts.append(down(self.features(chunk, gates, buffer[: len(chunk)]).to(dtype)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def install(model: nn.Module, taylor: Mapping[str, Any]) -> None:
    """Replace the MLPs of `model` in place, as the `taylor_mlp` entry of its config lists them."""
    for path, widths in taylor["layers"].items():
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, name, TaylorMLP(getattr(owner, name), taylor["roles"], taylor["basis"], widths))
