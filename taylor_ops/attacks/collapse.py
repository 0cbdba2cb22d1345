"""Polynomial collapse: the series of a neuron is its activation times one column, so the dense MLP can be put back.

The terms of a neuron sum to w phi(z). To be exact outside its intervals, the layer itself must say which multiple of w
its term of order 0 or 1 is (`carrier`). So one product gives the bare column. With these columns the original
architecture is rebuilt from the bundle, as exact as the bundle and as fast as the original.

This is an observation on this release form, in which phi is known. Any such series is redundant, because its
polynomials collapse to the function that they expand.
"""

from __future__ import annotations

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.config.audit import Audit


def recover(layer: ProtectedLayer, _settings: Audit) -> Recovered:
    """Recover the protected weights of one layer.

    The carrier has a factor for the terms of order 0 and 1 of each neuron. It makes one of them the bare column and the
    other one zero.
    """
    carrier, width = layer.tensor("carrier").float(), layer.protected
    first, second = layer.theta[:, :width], layer.theta[:, width : 2 * width]
    return Recovered(first * carrier[0] + second * carrier[1])


COLLAPSE = Attack(
    name="collapse",
    source="this project: the terms collapse to the activation that they expand",
    assumptions="the attacker has the bundle and its modeling code",
    budget=lambda _settings: "one product a weight, no data and no queries",
    recover=recover,
)
