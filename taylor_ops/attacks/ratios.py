"""Coefficient ratios: phi is public, so its coefficients on a stated interval are known, and every term is divided by
its own.

Theta_n = W c_n(center, radius) gives W with its sign and absolute scale, from any one order; all of them together are
averaged by least squares. Where a release hid the centres, and with them the biases of a plain MLP, the ratios of the
terms tell: how many neurons' intervals they give away is part of the result. Follows arXiv 2506.19874.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.attacks.intervals import intervals_of
from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.config.audit import Audit
from taylor_ops.series.expansion import coefficients, fit

_NEAR = 0.01


def recover(layer: ProtectedLayer, _settings: Audit) -> Recovered:
    """Withheld weights of one layer: its terms over the coefficients of phi, and how many intervals the ratios tell."""
    center, radius = layer.center, layer.radius
    known = coefficients(fit(layer.activation, center, radius, layer.basis), layer.orders)
    return Recovered(divided(layer, known), intervals=_intervals_told(layer, center, radius))


def divided(layer: ProtectedLayer, known: Tensor) -> Tensor:
    """Weights [H, F] float32 nearest to W with Theta_n = W c_n, for coefficients c [N + 1, F] float64."""
    share = (known / known.square().sum(0).clamp_min(torch.finfo(torch.float64).tiny)).float()
    weights = torch.zeros(layer.theta.shape[0], layer.protected)
    for order, terms in layer.by_order():
        width = terms.shape[1]
        weights[:, :width].addcmul_(terms, share[order, :width])
    return weights


def _intervals_told(layer: ProtectedLayer, center: Tensor, radius: Tensor) -> tuple[int, int]:
    """Of how many neurons both ends of the interval are found, and of how many they can be."""
    found, wide = intervals_of(observed(layer), layer.orders, layer.basis, layer.activation)
    near = (found - center).abs() <= _NEAR * radius
    told = near & ((wide - radius).abs() <= _NEAR * radius)
    return int(told.sum()), int((~found.isnan()).sum())


def observed(layer: ProtectedLayer) -> Tensor:
    """Coefficients [N + 1, F] float64 up to one factor a neuron: its terms along the largest of the first two."""
    _, first = next(layer.by_order())
    second = layer.theta[:, layer.protected : 2 * layer.protected]
    along = torch.where(first.norm(dim=0) >= second.norm(dim=0), first, second)
    along = along / along.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    seen = torch.zeros(len(layer.widths), layer.protected, dtype=torch.float64)
    for order, terms in layer.by_order():
        width = terms.shape[1]
        seen[order, :width] = (terms * along[:, :width]).sum(0).double()
    return seen


ATTACK = Attack(
    name="ratios",
    source="arXiv 2506.19874",
    assumptions="the attacker has the bundle, and the name of the activation, which its config states",
    budget=lambda _settings: "one division a term, no data and no queries",
    recover=recover,
)
