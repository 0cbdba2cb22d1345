"""The MLP activations, each with its value, Taylor coefficients, radius of convergence and asymptotes.

To add an activation, add one entry to `ACTIVATIONS` under every name that model configs use for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from taylor_ops.errors import BadInput


@dataclass(frozen=True)
class Activation:
    """An activation `phi`.

    A smooth phi tends to 0 on the left and to the identity on the right. A kinked phi is 0 left of a kink at 0 and a
    polynomial right of it.

    Attributes:
        name: Name of the activation in the config of a bundle.
        value: Maps a float64 tensor to phi of it, to float64 precision.
        taylor: Maps centres [F] float64 and an order N to the coefficients [N + 1, F] of phi about each centre.
        convergence_radius: Maps centres [F] to the distance [F] to the nearest singularity in the complex plane, which
            is infinite if phi is entire.
        degree: None if phi is smooth, the degree of the polynomial if it is kinked. No series converges across a kink,
            so phi is split there. Left of the kink it is exactly 0. `taylor` and `right` continue the polynomial on the
            right of the kink to the left.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    taylor: Callable[[Tensor, int], Tensor]
    convergence_radius: Callable[[Tensor], Tensor]
    degree: int | None = None

    def right(self, z: Tensor) -> Tensor:
        """Value at `z` of the function that a series expands: phi itself, or the polynomial right of its kink."""
        return self.value(z) if self.degree is None else z**self.degree

    def saturation(self, tolerance: Tensor) -> Tensor:
        """Smallest |z| on a 1/64 grid from which phi stays within `tolerance` of its asymptotes on both sides.

        Takes tolerances [F] float64 and returns values [F] from 1/64 to 64.
        """
        grid = torch.arange(0, 64, 1 / 64, dtype=torch.float64)
        gap = torch.maximum((self.value(grid) - grid).abs(), self.value(-grid).abs())
        worst_beyond = gap.flip(0).cummax(0).values
        near_enough = torch.searchsorted(worst_beyond, tolerance, right=True)
        return (len(grid) - near_enough).clamp_min(1).double() / 64


def _sigmoid_series(inner: Tensor) -> Tensor:
    """Taylor coefficients [N + 1, F] of sigmoid(q), from the coefficients `inner` [N + 1, F] of q.

    The recurrence follows from s' = s (1 - s) q'. It runs on the side on which s is small, by s(-q) = 1 - s(q), so that
    1 - s does not cancel.
    """
    order = inner.shape[0] - 1
    side = torch.where(inner[0] > 0, -1.0, 1.0).to(inner.dtype)
    slope = side * inner[1:] * torch.arange(1, order + 1, dtype=inner.dtype)[:, None]
    s = torch.zeros_like(inner)
    product = torch.zeros_like(inner)
    s[0] = torch.sigmoid(side * inner[0])
    for n in range(order):
        product[n] = s[n] - (s[: n + 1] * s[: n + 1].flip(0)).sum(0)
        s[n + 1] = (product[: n + 1] * slope[: n + 1].flip(0)).sum(0) / (n + 1)
    mirrored = torch.where(side > 0, s, -s)
    mirrored[0] = torch.where(side > 0, s[0], 1 - s[0])
    return mirrored


def _times_z(series: Tensor, center: Tensor) -> Tensor:
    """Coefficients of z * f(z) about `center`, from the coefficients `series` [N + 1, F] of f."""
    result = center * series
    result[1:] += series[:-1]
    return result


def _silu_taylor(scale: float) -> Callable[[Tensor, int], Tensor]:
    def coefficients(center: Tensor, order: int) -> Tensor:
        inner = torch.zeros(order + 1, *center.shape, dtype=center.dtype)
        inner[0] = scale * center
        if order:
            inner[1] = scale
        return _times_z(_sigmoid_series(inner), center)

    return coefficients


_TANH_CUBIC = 0.044715
_TANH_SCALE = math.sqrt(2 / math.pi)


def _gelu_tanh_taylor(center: Tensor, order: int) -> Tensor:
    # gelu_tanh(z) = z sigmoid(2 p(z)) with p(z) = sqrt(2/pi) (z + 0.044715 z^3).
    inner = torch.zeros(max(order, 3) + 1, *center.shape, dtype=center.dtype)
    inner[0] = center + _TANH_CUBIC * center**3
    inner[1] = 1 + 3 * _TANH_CUBIC * center**2
    inner[2] = 3 * _TANH_CUBIC * center
    inner[3] = _TANH_CUBIC
    return _times_z(_sigmoid_series(2 * _TANH_SCALE * inner[: order + 1]), center)


def _normal_distribution(z: Tensor) -> Tensor:
    # `torch.special.ndtr` computes (1 + erf) / 2, which has no digits left if the result is small.
    tail: Tensor = torch.special.erfc(-z / math.sqrt(2))
    return tail / 2


def _gelu_taylor(center: Tensor, order: int) -> Tensor:
    # The density g of the normal distribution obeys g' = -z g. Its integral is the distribution function.
    density = torch.zeros(order + 1, *center.shape, dtype=center.dtype)
    density[0] = torch.exp(-(center**2) / 2) / math.sqrt(2 * math.pi)
    for n in range(order):
        before = density[n - 1] if n else torch.zeros_like(center)
        density[n + 1] = -(center * density[n] + before) / (n + 1)
    steps = torch.arange(1, order + 1, dtype=center.dtype)[:, None]
    distribution = torch.cat([_normal_distribution(center)[None], density[:-1] / steps])
    return _times_z(distribution, center)


def _gelu_tanh_poles() -> Tensor:
    """Poles of gelu_tanh in the upper half plane: p(z) = i pi (k + 1/2), |k| <= 32."""
    poles = [
        root
        for k in range(-32, 32)
        for root in np.roots([_TANH_CUBIC, 0, 1, -1j * math.pi * (k + 0.5) / _TANH_SCALE])
        if root.imag > 0
    ]
    return torch.tensor(poles, dtype=torch.complex128)


def _distance_to(poles: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda center: (center[:, None] - poles[None, :]).abs().min(dim=1).values


_SILU = Activation(
    "silu",
    value=lambda z: z * torch.sigmoid(z),
    taylor=_silu_taylor(1.0),
    convergence_radius=lambda z: torch.sqrt(z**2 + math.pi**2),
)
_QUICK_GELU = Activation(
    "quick_gelu",
    value=lambda z: z * torch.sigmoid(1.702 * z),
    taylor=_silu_taylor(1.702),
    convergence_radius=lambda z: torch.sqrt(z**2 + (math.pi / 1.702) ** 2),
)
_GELU_TANH = Activation(
    "gelu_tanh",
    value=lambda z: z * torch.sigmoid(2 * _TANH_SCALE * (z + _TANH_CUBIC * z**3)),
    taylor=_gelu_tanh_taylor,
    convergence_radius=_distance_to(_gelu_tanh_poles()),
)
_GELU = Activation(
    "gelu",
    value=lambda z: z * _normal_distribution(z),
    taylor=_gelu_taylor,
    convergence_radius=lambda z: torch.full_like(z, math.inf),
)


def _powers(degree: int) -> Callable[[Tensor, int], Tensor]:
    def coefficients(center: Tensor, order: int) -> Tensor:
        series = torch.zeros(order + 1, *center.shape, dtype=center.dtype)
        for n in range(min(order, degree) + 1):
            series[n] = math.comb(degree, n) * center ** (degree - n)
        return series

    return coefficients


def _kinked(name: str, degree: int) -> Activation:
    return Activation(
        name,
        value=lambda z: z.clamp(min=0) ** degree,
        taylor=_powers(degree),
        convergence_radius=lambda z: torch.full_like(z, math.inf),
        degree=degree,
    )


ACTIVATIONS: dict[str, Activation] = {
    "silu": _SILU,
    "swish": _SILU,
    "gelu": _GELU,
    "gelu_python": _GELU,
    "gelu_new": _GELU_TANH,
    "gelu_fast": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "quick_gelu": _QUICK_GELU,
    "relu": _kinked("relu", 1),
    "relu2": _kinked("relu2", 2),
}


def activation_named(name: str) -> Activation:
    """The activation that a model config calls `name`. Raises `BadInput` with the known names if it is not known."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise BadInput(
            f"activation `{name}` is not known; known are {', '.join(sorted(ACTIVATIONS))}",
            "release a model with one of these, or add an entry to taylor_ops/series/activations.py",
        ) from None
