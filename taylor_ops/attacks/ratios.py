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
    # An expansion is fitted on the CPU, where a conversion fits it.
    center, radius, orders = layer.center.cpu(), layer.radius.cpu(), layer.orders.cpu()
    divisors = coefficients(fit(layer.activation, center, radius, layer.basis), orders)
    return Recovered(divided(layer, divisors.to(layer.device)), intervals=_intervals_found(layer))


def divided(layer: ProtectedLayer, divisors: Tensor) -> Tensor:
    """Weights [H, P] float32 nearest to W with Theta_n = W c_n, for coefficients c [N + 1, P] float64."""
    return layer.combined(divisors / divisors.square().sum(0).clamp_min(torch.finfo(torch.float64).tiny))


def _intervals_found(layer: ProtectedLayer) -> tuple[int, int]:
    """For how many neurons the attack finds both ends of the interval, and for how many it can."""
    found_center, found_radius = intervals_of(layer.observed, layer.orders, layer.basis, layer.activation)
    near = (found_center - layer.center).abs() <= _NEAR * layer.radius
    found = near & ((found_radius - layer.radius).abs() <= _NEAR * layer.radius)
    found_count, asked = torch.stack([found.sum(), (~found_center.isnan()).sum()]).tolist()
    return found_count, asked


RATIOS = Attack(
    name="ratios",
    source="arXiv 2506.19874",
    assumptions="the attacker has the bundle, and the name of the activation, which its config states",
    budget=lambda _settings: "one division a term, no data and no queries",
    recover=recover,
)
