"""Find the interval of each neuron from its terms alone, to see what hiding centres, and biases in them, would hide.

The ratios of a neuron's terms equal the ratios of the coefficients of phi on [center - radius, center + radius],
whatever its output weights. Each ratio is one equation for the two unknowns. Powers of t come in two forms, see
`expansion`: phi's own Taylor series, or its Chebyshev series rewritten. Both are tried, and the better fit counts.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from taylor_ops.config.conversion import Basis
from taylor_ops.series.activations import Activation
from taylor_ops.series.expansion import offsets, signs

_TERMS = 12
_LEAST_ORDER = 4
_NODES = 96
_CENTERS = torch.linspace(-12, 12, 49, dtype=torch.float64)
_RADII = torch.logspace(-1.2, 1.3, 26, dtype=torch.float64)
_STEPS = 12
_DIFFERENCE = 1e-6


def intervals_of(ratios: Tensor, orders: Tensor, basis: Basis, activation: Activation) -> tuple[Tensor, Tensor]:
    """Centres and radii [F] float64 of the neurons, from coefficients [N + 1, F] up to one factor a neuron.

    The search takes the best point of a grid, and damped Gauss-Newton steps from there.

    A neuron gets NaN if its order is below 4, which does not determine two unknowns. All neurons get NaN if phi has a
    kink, because the interval of a polynomial only scales its terms.
    """
    center, radius, misfit = _searched(ratios, orders, basis, activation)
    if basis == "taylor":
        rewritten = _as_released(torch.from_numpy(_chebyshev_of_powers(len(ratios) - 1)).to(ratios) @ ratios)
        other_center, other_radius, other = _searched(rewritten, orders, "chebyshev", activation)
        nearer = other < misfit
        center, radius = torch.where(nearer, other_center, center), torch.where(nearer, other_radius, radius)
    determined = (orders >= _LEAST_ORDER) & (activation.degree is None)
    return torch.where(determined, center, torch.nan), torch.where(determined, radius, torch.nan)


def _searched(ratios: Tensor, orders: Tensor, basis: Basis, activation: Activation) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, radii, and the squared part of the first coefficients, of norm 1, that they do not explain; all [F]."""
    used = torch.arange(min(_TERMS, len(ratios)), device=orders.device)[:, None] <= orders
    seen = torch.where(used, ratios[: len(used)], 0.0)
    seen = seen / seen.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    center, log_radius = _best_of_grid(seen, used, basis, activation)
    damping = torch.full_like(center, 1e-3)
    best = _misfit(seen, used, center, log_radius, basis, activation)
    for _ in range(_STEPS):
        slopes = [
            (_misfit(seen, used, center + dc, log_radius + dr, basis, activation) - best) / _DIFFERENCE
            for dc, dr in ((_DIFFERENCE, 0.0), (0.0, _DIFFERENCE))
        ]
        step = _damped_step(slopes, best, damping)
        tried = _misfit(seen, used, center + step[0], log_radius + step[1], basis, activation)
        better = tried.square().sum(0) < best.square().sum(0)
        center = torch.where(better, center + step[0], center)
        log_radius = torch.where(better, log_radius + step[1], log_radius)
        best = torch.where(better, tried, best)
        damping = torch.where(better, damping / 10, damping * 10)
    return center, log_radius.exp(), best.square().sum(0)


def _leading(center: Tensor, radius: Tensor, terms: int, basis: Basis, activation: Activation) -> Tensor:
    """The first `terms` coefficients [terms, F] of phi, as `expansion.coefficients` gives them for orders from 4 on."""
    degrees = torch.arange(terms, device=center.device)[:, None]
    if basis == "taylor":
        # Its recurrences run on the CPU.
        return activation.taylor(center.cpu(), terms - 1).to(center) * radius**degrees
    angles = (torch.arange(_NODES, dtype=torch.float64, device=center.device) + 0.5) * (torch.pi / _NODES)
    transform = torch.cos(degrees * angles) * (2 / _NODES)
    transform[0] /= 2
    return _as_released(transform @ activation.right(center + radius * torch.cos(angles)[:, None]))


def _as_released(chebyshev: Tensor) -> Tensor:
    """Give coefficients [N, F] of the plain T_n the signs and offsets of the form that is evaluated."""
    series = chebyshev * signs(len(chebyshev)).to(chebyshev)[:, None]
    series[0] += offsets(len(series)).to(series) @ series
    return series


@cache
def _chebyshev_of_powers(highest: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Matrix [N + 1, N + 1] with the coefficients of t^n in T_0 .. T_N as column n. No coefficient is above 1."""
    matrix = np.zeros((highest + 1, highest + 1))
    for n in range(highest + 1):
        matrix[: n + 1, n] = np.polynomial.chebyshev.poly2cheb(np.eye(highest + 1)[n, : n + 1])
    return matrix


def _best_of_grid(seen: Tensor, used: Tensor, basis: Basis, activation: Activation) -> tuple[Tensor, Tensor]:
    center, radius = (grid.flatten().to(seen) for grid in torch.meshgrid(_CENTERS, _RADII, indexing="ij"))
    expected = _leading(center, radius, len(seen), basis, activation)
    likeness = (expected.T @ seen).square() / (expected.square().T @ used.double()).clamp_min(1e-300)
    best = likeness.argmax(0)
    return center[best], radius[best].log()


def _misfit(
    seen: Tensor, used: Tensor, center: Tensor, log_radius: Tensor, basis: Basis, activation: Activation
) -> Tensor:
    """The part of `seen` [terms, F] that is no multiple of the coefficients of phi on these intervals."""
    radius = log_radius.clamp(-8, 6).exp()
    expected = torch.where(used, _leading(center.clamp(-64, 64), radius, len(seen), basis, activation), 0.0)
    factor = (seen * expected).sum(0) / expected.square().sum(0).clamp_min(1e-300)
    return seen - factor * expected


def _damped_step(slopes: list[Tensor], misfit: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The Levenberg-Marquardt step in two unknowns, for all neurons at once."""
    a, d = (slope.square().sum(0) * (1 + damping) + 1e-300 for slope in slopes)
    b = (slopes[0] * slopes[1]).sum(0)
    right = [-(slope * misfit).sum(0) for slope in slopes]
    determinant = (a * d - b * b).clamp_min(1e-300)
    return (d * right[0] - b * right[1]) / determinant, (a * right[1] - b * right[0]) / determinant
