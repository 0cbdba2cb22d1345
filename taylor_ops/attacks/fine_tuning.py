"""Attacks by fine-tuning on text: train all protected output weights, or low-rank changes of them (LoRA)."""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.attacks.training import STEP_TOKENS, Adjustable, Training
from taylor_ops.config.audit import Audit


def all_weights(start: Tensor, _settings: Audit, _generator: torch.Generator) -> Adjustable:
    """Make each of the weights [H, P] adjustable."""
    leaf = start.clone().requires_grad_()
    return Adjustable([leaf], lambda: leaf)


def low_rank_change(start: Tensor, settings: Audit, generator: torch.Generator) -> Adjustable:
    """Keep the weights [H, P], and add an adjustable product of rank `settings.lora_rank` that starts at zero."""
    height, width = start.shape
    rank = min(settings.lora_rank, height, width)
    down = (torch.randn(rank, width, generator=generator) / width**0.5).to(start.device).requires_grad_()
    up = torch.zeros(height, rank, device=start.device).requires_grad_()
    return Adjustable([up, down], lambda: start + up @ down)


FINE_TUNING = Training(
    name="fine_tuning",
    source="arXiv 2410.05331, defence against fine-tuning",
    assumptions="the attacker has the bundle and a text of the task; the protected weights start at random, no term is "
    "looked at",
    budget=lambda settings: f"{settings.tuning_steps} steps of Adam, {STEP_TOKENS} tokens each",
    rate=2e-3,
    adjustable=all_weights,
)

LORA = Training(
    name="lora",
    source="arXiv 2410.05331, defence against fine-tuning; LoRA is arXiv 2106.09685",
    assumptions="the attacker has the bundle and a text of the task; the protected weights stay random and get "
    "adapters, no term is looked at",
    budget=lambda settings: (
        f"rank {settings.lora_rank}, {settings.tuning_steps} steps of Adam, {STEP_TOKENS} tokens each"
    ),
    rate=5e-3,
    adjustable=low_rank_change,
)
