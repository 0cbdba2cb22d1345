"""Attacks by distillation: output weights trained on the outputs of a protected MLP, from nothing or from an attack."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered, sampled
from taylor_ops.config.audit import Audit

_BATCH = 256
_RATE = 0.03
_SEED = 1


def recover(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Withheld weights of one layer as `settings.steps` steps of Adam on sampled activations find them."""
    features, outputs = sampled(layer, settings.samples)
    return Recovered(trained(features.float(), outputs.float(), settings.steps))


def trained(features: Tensor, outputs: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
    """Weights [H, F] that map features [S, F] to outputs [S, H] as well as so many steps can; float32.

    start: weights [H, F] to begin with, random ones where there are none. Features and outputs are brought to unit
    size, so that one rate suits all layers; it falls to zero along a cosine.
    """
    wide, high = (part.square().mean(0).sqrt().clamp_min(1e-12) for part in (features, outputs))
    generator = torch.Generator().manual_seed(_SEED)
    if start is None:
        student = torch.randn(outputs.shape[1], features.shape[1], generator=generator) / math.sqrt(features.shape[1])
    else:
        student = start * wide / high[:, None]
    student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=_RATE)
    for step in range(steps):
        rows = torch.randint(len(features), (_BATCH,), generator=generator)
        loss = ((features[rows] / wide) @ student.T - outputs[rows] / high).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
    return student.detach() * high[:, None] / wide


def budget(settings: Audit) -> str:
    """What the training may spend, in words."""
    return f"{settings.samples} random inputs and {settings.steps} steps of Adam a layer"


ATTACK = Attack(
    name="distillation",
    source="arXiv 2410.05331, as a baseline",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and trains a copy; no term is "
    "looked at",
    budget=budget,
    recover=recover,
)


def recover_warm(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Withheld weights of one layer as `settings.steps` steps of Adam from its terms of order 1 find them."""
    features, outputs = sampled(layer, settings.samples)
    width = layer.protected
    start = layer.theta[:, width : 2 * width]
    return Recovered(trained(features.float(), outputs.float(), settings.steps, start))


WARM = Attack(
    name="warm_distillation",
    source="distillation as in arXiv 2410.05331, from what the bundle states instead of from random",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and trains a copy that starts at "
    "the stored terms of order 1",
    budget=budget,
    recover=recover_warm,
)
