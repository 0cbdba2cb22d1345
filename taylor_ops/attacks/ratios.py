"""Coefficient ratios: divide each term by its coefficient, which the public phi and the stated interval determine.

Theta_n = W c_n(center, radius) gives W with its sign and absolute scale, from any one order. Least squares averages all
orders. If a release hid the centres, and with them the biases of a plain MLP, the ratios of the terms could still give
them away. The result says for how many neurons they do. The attack follows arXiv 2506.19874.
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
    """Recover the protected weights of one layer, and count the intervals that the ratios of its terms give away.

    The weights are the terms divided by the coefficients of phi.
    """
    center, radius = layer.center, layer.radius
    divisors = coefficients(fit(layer.activation, center, radius, layer.basis), layer.orders)
    return Recovered(divided(layer, divisors), intervals=_intervals_found(layer, center, radius))


def divided(layer: ProtectedLayer, divisors: Tensor) -> Tensor:
    """Weights [H, F] float32 nearest to W with Theta_n = W c_n, for coefficients c [N + 1, F] float64."""
    share = (divisors / divisors.square().sum(0).clamp_min(torch.finfo(torch.float64).tiny)).float()
    weights = torch.zeros(layer.theta.shape[0], layer.protected)
    for order, terms in layer.by_order():
        width = terms.shape[1]
        weights[:, :width].addcmul_(terms, share[order, :width])
    return weights


def _intervals_found(layer: ProtectedLayer, center: Tensor, radius: Tensor) -> tuple[int, int]:
    """For how many neurons the attack finds both ends of the interval, and for how many it can."""
    found_center, found_radius = intervals_of(observed(layer), layer.orders, layer.basis, layer.activation)
    near = (found_center - center).abs() <= _NEAR * radius
    found = near & ((found_radius - radius).abs() <= _NEAR * radius)
    return int(found.sum()), int((~found_center.isnan()).sum())


def observed(layer: ProtectedLayer) -> Tensor:
    """Coefficients [N + 1, F] float64 up to one factor a neuron: its terms along the larger of its first two."""
    _, first = next(layer.by_order())
    second = layer.theta[:, layer.protected : 2 * layer.protected]
    along = torch.where(first.norm(dim=0) >= second.norm(dim=0), first, second)
    along = along / along.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    seen = torch.zeros(len(layer.widths), layer.protected, dtype=torch.float64)
    for order, terms in layer.by_order():
        width = terms.shape[1]
        seen[order, :width] = (terms * along[:, :width]).sum(0).double()
    return seen


RATIOS = Attack(
    name="ratios",
    source="arXiv 2506.19874",
    assumptions="the attacker has the bundle, and the name of the activation, which its config states",
    budget=lambda _settings: "one division a term, no data and no queries",
    recover=recover,
)
