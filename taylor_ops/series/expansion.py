"""Fit, bound and rewrite the expansion of an activation on each neuron's interval.

For neuron j with local embedding z0_j and radius r_j, `phi(z) ~ sum_n c[n, j] P_n(t)` with `t = (z - z0_j) / r_j`
(TaylorMLP, arXiv 2410.05331, section 3). There are two bases:

- `taylor`: P_n(t) = t^n, the form of the paper. If phi's own Taylor series converges by order 32 on the interval, its
  coefficients are used. If not, because a pole of phi is too near, the Chebyshev series is rewritten in powers.
- `chebyshev`: P_n(t) = s_n T_n(t) with signs s = + + - - + + ..., which turn the three-term recurrence into one
  fused step, P_{n+1} = P_{n-1} + s_n s_{n+1} 2 t P_n. It converges geometrically on every interval. P_2 and P_4 have
  their value at t = 0, which is 1, subtracted, see `offsets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from taylor_ops.config.conversion import Basis
from taylor_ops.machine.threads import on_one_thread
from taylor_ops.series.activations import Activation

_NODES = 256
_HIGHEST_DEGREE = 160
# The samples of so many neurons fit into the cache of a core and into memory that the process already has. Fresh pages
# cost time.
_NEURONS_AT_ONCE = 512
_OWN_SERIES_ORDER = 32
_OWN_SERIES_TAIL = 1e-6
_SMALLEST_RADIUS = 2.0**-6
_SMALLEST_NORMAL = 2.0**-14  # of float16
_ALIVE = -2.0


@dataclass(frozen=True)
class Expansion:
    """Expansions of one activation for the F neurons of a layer, all tensors float64 on the CPU.

    Attributes:
        center: [F], exact in bfloat16 and float16, so that no release dtype moves an interval.
        radius: [F], exact like the centres.
        chebyshev: [D + 1, F], coefficients of the plain T_n, D = 160.
        taylor: [D + 1, F], coefficients of t^n. The columns of neurons whose own series converges too slowly are NaN.
            None in the Chebyshev basis.
        kinked: Whether phi is 0 left of 0 and the series everywhere right of 0. If not, the series holds on its
            interval only.
    """

    center: Tensor
    radius: Tensor
    chebyshev: Tensor
    taylor: Tensor | None
    kinked: bool = False

    @property
    def basis(self) -> Basis:
        """The basis in which this expansion is evaluated."""
        return "chebyshev" if self.taylor is None else "taylor"

    @cached_property
    def errors(self) -> Tensor:
        """Bound [D, F] on the error of phi on each interval if the series ends at order 0 .. D - 1.

        It is the sum of the magnitudes of the coefficients that are left out, up to degree 160, because |P_n(t)| <= 1
        on |t| <= 1 in both bases. For every interval that a release uses, coefficients of higher degrees are as small
        as float64 rounding.
        """
        series = self.chebyshev
        if self.taylor is not None:
            series = torch.where(self.taylor.isnan(), series, self.taylor)
        left_out = series[1:].abs()
        # The loop goes row by row, because `cumsum` goes column by column and misses the cache at every step.
        for order in range(len(left_out) - 2, -1, -1):
            left_out[order] += left_out[order + 1]
        return left_out

    def of(self, selected: Tensor) -> Expansion:
        """The expansions of the neurons whose `selected` [F] is true."""
        if bool(selected.all()):
            return self
        taylor = None if self.taylor is None else self.taylor[:, selected]
        return Expansion(self.center[selected], self.radius[selected], self.chebyshev[:, selected], taylor, self.kinked)


def signs(orders: int) -> Tensor:
    """s_n for n < orders, as [orders] float64: + + - - + + - - ..."""
    return 1.0 - 2.0 * ((torch.arange(orders) // 2) % 2).double()


def offsets(orders: int) -> Tensor:
    """Offsets subtracted from s_n T_n in the Chebyshev basis for n < orders, as [orders] float64.

    The offset is 1 for n = 2 and 4, and 0 for all others. s_n T_n(0) is 1 for every even n. Most pre-activations lie in
    the middle of their interval. There, large multiples of W would cancel to a small phi and leave their rounding
    errors behind. Without the constant, each multiple is small. Above order 4 the coefficients are too small for the
    constant to matter.
    """
    degree = torch.arange(orders)
    return ((degree == 2) | (degree == 4)).double()


def intervals(low: Tensor, high: Tensor, margin: float, saturation: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and radii [F] of the intervals for captured ranges `low`, `high` [F] (float64).

    Each range is widened by `margin` times its width on both sides and cut at +-`saturation` [F]. Beyond that, the
    activation equals its asymptote within the tolerance. Each interval reaches at least up to -2. If phi vanished on
    the whole interval, the terms would vanish too, and the terms carry the output of a neuron outside its interval.
    Radii are rounded up, never down.
    """
    width = high - low
    low = (low - margin * width).clamp(-saturation, saturation)
    high = (high + margin * width).clamp(-saturation, saturation).clamp_min(_ALIVE)
    center = ((low + high) / 2).to(torch.bfloat16).double()
    center = torch.where(center.abs() < _SMALLEST_NORMAL, 0.0, center)
    reach = torch.maximum(high - center, center - low).clamp_min(_SMALLEST_RADIUS)
    mantissa, exponent = torch.frexp(reach)
    radius = torch.ldexp(torch.ceil(mantissa * 256) / 256, exponent)
    return center, radius


def right_of_the_kink(high: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and radii [F] of the intervals of a kinked activation, from the kink at 0 to about `high` [F].

    Centres and radii are equal. The series is a polynomial and holds beyond its interval too, so the interval only
    scales the terms.
    """
    radius = (high.clamp_min(1.0) / 2).to(torch.bfloat16).double()
    return radius, radius.clone()


def fit(activation: Activation, center: Tensor, radius: Tensor, basis: Basis) -> Expansion:
    """Expand `activation` on [center - radius, center + radius] for every neuron, to degree 160, in float64."""
    angles = (torch.arange(_NODES, dtype=torch.float64) + 0.5) * (torch.pi / _NODES)
    nodes = torch.cos(angles)[:, None]
    degrees = torch.arange(_HIGHEST_DEGREE + 1, dtype=torch.float64)
    transform = torch.cos(degrees[:, None] * angles) * (2 / _NODES)
    transform[0] /= 2
    pieces = -(-len(center) // _NEURONS_AT_ONCE)
    places = zip(*(torch.tensor_split(part, pieces) for part in (center, radius)), strict=True)
    chebyshev = torch.cat([transform @ activation.right(middle + reach * nodes) for middle, reach in places], dim=1)
    kinked = activation.degree is not None
    if activation.degree is not None:
        chebyshev[activation.degree + 1 :] = 0
    if basis == "chebyshev":
        return Expansion(center, radius, chebyshev, None, kinked)
    scaled = activation.taylor(center, _HIGHEST_DEGREE) * radius ** degrees[:, None]
    diverges = radius >= activation.convergence_radius(center)
    slow = ~(scaled[_OWN_SERIES_ORDER + 1 :].abs().sum(dim=0) <= _OWN_SERIES_TAIL)
    scaled[:, diverges | slow] = torch.nan
    return Expansion(center, radius, chebyshev, scaled, kinked)


def orders_for(bounds: Tensor, tolerance: Tensor | float, max_order: int) -> Tensor:
    """Smallest orders [F] (int64, at least 1) with an error of at most `tolerance`, or `max_order + 1` if none has.

    Args:
        bounds: [D, F], `Expansion.errors`.
        tolerance: One for all neurons, or [F].
        max_order: Highest order that is tried.
    """
    return (bounds[: max_order + 1] > tolerance).sum(0).clamp_min(1)


@on_one_thread
def coefficients(expansion: Expansion, orders: Tensor) -> Tensor:
    """Coefficients [N + 1, F] float64 of the basis as evaluated, N = max(orders), zero above each neuron's order."""
    highest = int(orders.max())
    degree = torch.arange(highest + 1)[:, None]
    in_series = degree <= orders
    chebyshev = torch.where(in_series, expansion.chebyshev[: highest + 1], 0.0)
    if expansion.taylor is None:
        series = chebyshev * signs(highest + 1)[:, None]
        series[0] += offsets(highest + 1) @ series
        return series
    powers = torch.from_numpy(_powers_of_chebyshev(highest)) @ chebyshev
    own_series = ~expansion.taylor[0].isnan()
    return torch.where(own_series, torch.where(in_series, expansion.taylor[: highest + 1], 0.0), powers)


@cache
def _powers_of_chebyshev(highest: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Matrix [N + 1, N + 1] whose column n holds the coefficients of T_n in powers of t: T_n = 2 t T_n-1 - T_n-2."""
    matrix = np.eye(highest + 1)
    for n in range(2, highest + 1):
        matrix[1:, n] = 2 * matrix[:-1, n - 1]
        matrix[:, n] -= matrix[:, n - 2]
    return matrix


def evaluate(basis: Basis, series: Tensor, t: Tensor) -> Tensor:
    """Sum of the series [N + 1, F] in the evaluated basis at points `t` [..., F], float64, by recurrence."""
    before, current = torch.ones_like(t), t
    total = series[0] * before + (series[1] * current if len(series) > 1 else 0.0)
    sign, offset = signs(len(series)), offsets(len(series))
    for n in range(2, len(series)):
        if basis == "chebyshev":
            before, current = current, before + sign[n - 1] * sign[n] * 2 * t * current
            total = total + series[n] * (current - offset[n])
        else:
            before, current = current, t * current
            total = total + series[n] * current
    return total
