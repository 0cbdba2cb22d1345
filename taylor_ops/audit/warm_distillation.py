"""Layerwise distillation that starts from the public parts: the output weights begin as a stored term, not at random.

The term of order 1 of a neuron is its column of output weights times a number, so that a student who copies it has
every direction before the first step, and training has only the scales and signs to find.
"""

from __future__ import annotations

from taylor_ops.audit.distillation import budget, trained
from taylor_ops.audit.layer import Attack, ProtectedLayer, Recovered
from taylor_ops.audit.sampling import sampled
from taylor_ops.config.audit import Audit


def recover(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Withheld weights of one layer as `settings.steps` steps of Adam from its terms of order 1 find them."""
    features, outputs = sampled(layer, settings.samples)
    width = layer.protected
    start = layer.theta[:, width : 2 * width]
    return Recovered(trained(features.float(), outputs.float(), settings.steps, start))


ATTACK = Attack(
    name="warm_distillation",
    source="distillation as in arXiv 2410.05331, from what the bundle states instead of from random",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and trains a copy that starts at "
    "the stored terms of order 1",
    budget=budget,
    recover=recover,
)
