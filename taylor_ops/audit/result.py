"""The record that every attack returns, and how recovered weights are scored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from taylor_ops.attacks.record import Task
from taylor_ops.storage.record import Record


class Timed(Record):
    """Decode time of another model over that of the original, timed in turn.

    settled: whether the interval is as narrow as was wanted; on a noisy machine it is not. seconds_*: raw samples, one
    a pair.
    """

    slowdown: float
    ci95: tuple[float, float]
    settled: bool
    device: str
    seconds_original: tuple[float, ...]
    seconds_other: tuple[float, ...]


class Rebuilt(Record):
    """The original architecture with recovered weights, against the original on held-out prompts.

    Tokens are greedy and compared position by position; KL(original || rebuilt) in nats per token. residual: what is
    left of the slowdown; None where memory does not hold both models, so that the disk would be timed.
    """

    prompts: int
    prompts_equal: int
    tokens_compared: int
    kl_mean: float
    kl_max: float
    top1_agreement: float
    residual: Timed | None


class AttackResult(Record):
    """What an attack recovered of the withheld output weights.

    source: where it was published. assumptions: what the attacker sees. budget: what it may spend. recovered_1pct,
    recovered_01pct: share of the withheld weights within 1 % and 0.1 % of their neuron's root mean square.
    cosine_median, cosine_worst: per column, sign included. under_determined: why the attack cannot tell all weights;
    what it left open counts as not recovered. intervals_found: share of the neurons whose interval the terms alone give
    away, among those that have the orders to tell it by, which are a share `intervals_asked` of all; None where the
    attack does not ask. task: of an attack that trains for a task. rebuilt: None where the config does not ask for it.
    seconds: of the attack alone, scoring left out. peak_rss_bytes: of this process while it ran.
    """

    attack: str
    source: str
    assumptions: str
    budget: str
    weights: int
    recovered_1pct: float
    recovered_01pct: float
    cosine_median: float
    cosine_worst: float
    under_determined: str | None = None
    intervals_found: float | None = None
    intervals_asked: float | None = None
    task: Task | None = None
    rebuilt: Rebuilt | None = None
    seconds: float
    peak_rss_bytes: int


class Score:
    """Collects, layer by layer, how near recovered columns [H, F] are to the true ones."""

    def __init__(self) -> None:
        self._within = [0, 0]
        self._weights = 0
        self._cosines: list[Tensor] = []

    def add(self, recovered: Tensor, true: Tensor) -> None:
        """Score one layer; columns of both in the same order, NaN in those that were not found."""
        recovered, true = recovered.float(), true.float()
        scale = true.square().mean(0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        error = (recovered - true).abs() / scale
        self._within[0] += int((error <= 1e-2).sum())
        self._within[1] += int((error <= 1e-3).sum())
        self._weights += true.numel()
        # A column that was not found, or holds what no number can be made of, is like no other.
        self._cosines.append(torch.nn.functional.cosine_similarity(recovered, true, dim=0).nan_to_num(0.0))

    def figures(self) -> dict[str, Any]:
        """The score of everything added, by the names of the fields of `AttackResult`."""
        cosines = torch.cat(self._cosines)
        return {
            "weights": self._weights,
            "recovered_1pct": self._within[0] / self._weights,
            "recovered_01pct": self._within[1] / self._weights,
            "cosine_median": float(cosines.median()),
            "cosine_worst": float(cosines.min()),
        }

    @property
    def neurons(self) -> int:
        """How many columns were added."""
        return sum(map(len, self._cosines))
