"""The record that every attack returns, and how recovered weights are scored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from taylor_ops.records import Record

Progress = Callable[[int, int], None]


class AttackResult(Record):
    """What an attack recovered of the withheld output weights.

    source: where it was published. assumptions: what the attacker sees. recovered_1pct, recovered_01pct: share of the
    withheld weights within 1 % and 0.1 % of their neuron's root mean square. cosine_median, cosine_worst: per column,
    sign included. seconds: of the attack alone, scoring left out.
    """

    attack: str
    source: str
    assumptions: str
    weights: int
    recovered_1pct: float
    recovered_01pct: float
    cosine_median: float
    cosine_worst: float
    seconds: float


class Score:
    """Collects, layer by layer, how near recovered columns [H, F] are to the true ones."""

    def __init__(self) -> None:
        self._within = [0, 0]
        self._weights = 0
        self._cosines: list[Tensor] = []

    def add(self, recovered: Tensor, true: Tensor) -> None:
        """Score one layer; columns of both in the order of the original."""
        recovered, true = recovered.float(), true.float()
        scale = true.square().mean(0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        error = (recovered - true).abs() / scale
        self._within[0] += int((error <= 1e-2).sum())
        self._within[1] += int((error <= 1e-3).sum())
        self._weights += true.numel()
        self._cosines.append(torch.nn.functional.cosine_similarity(recovered, true, dim=0))

    def result(self, attack: str, source: str, assumptions: str, seconds: float) -> AttackResult:
        """The score of everything added."""
        cosines = torch.cat(self._cosines)
        return AttackResult(
            attack=attack,
            source=source,
            assumptions=assumptions,
            weights=self._weights,
            recovered_1pct=self._within[0] / self._weights,
            recovered_01pct=self._within[1] / self._weights,
            cosine_median=float(cosines.median()),
            cosine_worst=float(cosines.min()),
            seconds=seconds,
        )
