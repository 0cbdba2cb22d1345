"""Attacks by distillation: train output weights on the outputs of a protected MLP, from random weights or its terms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered, sampled
from taylor_ops.config.audit import Audit

_BATCH = 256
_RATE = 0.03
_SEED = 1


def recover_from_random(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Recover the protected weights of one layer by `settings.steps` steps of Adam from random weights."""
    features, outputs = sampled(layer, settings.samples)
    return Recovered(trained(features.float(), outputs.float(), settings.steps))


def recover_from_terms(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Recover the protected weights of one layer by `settings.steps` steps of Adam from its terms of order 1."""
    features, outputs = sampled(layer, settings.samples)
    width = layer.protected
    start = layer.theta[:, width : 2 * width]
    return Recovered(trained(features.float(), outputs.float(), settings.steps, start))


def trained(features: Tensor, outputs: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
    """Train weights [H, F] float32 to map features [S, F] to outputs [S, H].

    Features and outputs are scaled to unit size, so that one learning rate suits all layers. The rate falls to zero
    along a cosine.

    Args:
        features: Inputs of the output weights.
        outputs: What they should give.
        steps: How many steps of Adam to take.
        start: Weights [H, F] to begin with. Random weights by default.
    """
    wide, high = (part.square().mean(0).sqrt().clamp_min(1e-12) for part in (features, outputs))
    inputs, goals = features / wide, outputs / high
    generator = torch.Generator().manual_seed(_SEED)
    if start is None:
        random = torch.randn(outputs.shape[1], features.shape[1], generator=generator) / math.sqrt(features.shape[1])
        student = random.to(features)
    else:
        student = start * wide / high[:, None]
    student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=_RATE)
    batches = torch.randint(len(features), (steps, _BATCH), generator=generator).to(features.device)
    for step, rows in enumerate(batches):
        loss = (inputs[rows] @ student.T - goals[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
    return student.detach() * high[:, None] / wide


def budget(settings: Audit) -> str:
    """What a distillation may spend, in words."""
    return f"{settings.samples} random inputs and {settings.steps} steps of Adam a layer"


DISTILLATION = Attack(
    name="distillation",
    source="arXiv 2410.05331, as a baseline",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and trains a copy; no term is "
    "looked at",
    budget=budget,
    recover=recover_from_random,
)

WARM_DISTILLATION = Attack(
    name="warm_distillation",
    source="distillation as in arXiv 2410.05331, from the stored terms instead of random weights",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and trains a copy that starts at "
    "the stored terms of order 1",
    budget=budget,
    recover=recover_from_terms,
)
