"""Polynomial collapse: the series of a neuron is its activation times one column, so the dense MLP can be put back.

The terms of a neuron sum to w phi(z). Which multiple of w its term of order 0 or 1 is, the layer itself has to say, to
be exact outside its intervals (`carrier`): one product gives the bare column. With it the original architecture is
rebuilt from the bundle, as exact as the bundle and as fast as the original. An observation on this release form, in
which phi is known: the collapse of polynomials to the function they expand is what makes any such series redundant.
"""

from __future__ import annotations

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.config.audit import Audit


def recover(layer: ProtectedLayer, _settings: Audit) -> Recovered:
    """Withheld weights of one layer: its terms of order 0 and 1, each times what makes it the bare column, or zero."""
    carrier, width = layer.tensor("carrier").float(), layer.protected
    first, second = layer.theta[:, :width], layer.theta[:, width : 2 * width]
    return Recovered(first * carrier[0] + second * carrier[1])


ATTACK = Attack(
    name="collapse",
    source="this project: the terms collapse to the activation that they expand",
    assumptions="the attacker has the bundle and its modeling code",
    budget=lambda _settings: "one product a weight, no data and no queries",
    recover=recover,
)
