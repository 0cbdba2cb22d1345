"""Full fine-tuning: every withheld weight, from random, is trained on a downstream text."""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.audit.training import STEP_TOKENS, Adjustable, Training
from taylor_ops.config.audit import Audit


def adjustable(start: Tensor, _settings: Audit, _generator: torch.Generator) -> Adjustable:
    """All weights [H, P], one by one."""
    leaf = start.clone().requires_grad_()
    return Adjustable([leaf], lambda: leaf)


TRAINING = Training(
    name="fine_tuning",
    source="arXiv 2410.05331, defence against fine-tuning",
    assumptions="the attacker has the bundle and a text of the task; the withheld weights start at random, no term is "
    "looked at",
    budget=lambda settings: f"{settings.tuning_steps} steps of Adam, {STEP_TOKENS} tokens each",
    rate=2e-3,
    adjustable=adjustable,
)
