"""Count, position by position, how far two models agree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from taylor_ops.exactness.generation import Continuation
from taylor_ops.exactness.record import Comparison, Divergence


@dataclass
class Tally:
    """Running totals of one comparison of greedy continuations.

    Attributes:
        prompts, equal: Prompts so far, and those whose tokens are all equal.
        tokens, agreed: Compared tokens, and those for which both models have the same most probable token.
        kl_sum, kl_max: Sum and largest of the KL of each token, in nats.
        difference: The largest log-prob difference, in nats.
        diverged: Prompt, position and margin in nats of each divergence.
    """

    prompts: int = 0
    equal: int = 0
    tokens: int = 0
    agreed: int = 0
    kl_sum: float = 0.0
    kl_max: float = 0.0
    difference: float = 0.0
    diverged: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, original: Continuation, other: Continuation) -> bool:
        """Compare one prompt. Returns whether all tokens are equal."""
        return self.add_all([(original, other)])[0]

    def add_all(self, pairs: Iterable[tuple[Continuation, Continuation]]) -> list[bool]:
        """Compare prompts, each by the continuations of the original and of the other model.

        The logits stay on their device, from which the figures of all prompts come in one transfer.

        Returns:
            For each prompt, whether all tokens are equal.
        """
        compared = list(pairs)
        figures = torch.stack([_agreement(original, other) for original, other in compared]).tolist()
        for (original, _), (differs, shared, agreed, kl_sum, kl_max, difference, margin) in zip(
            compared, figures, strict=True
        ):
            self.prompts += 1
            self.tokens += int(shared)
            self.agreed += int(agreed)
            self.kl_sum += kl_sum
            # max(nan, x) would forget the nan that a broken model makes.
            self.kl_max = _larger(self.kl_max, kl_max)
            self.difference = _larger(self.difference, difference)
            if differs:
                self.diverged.append((original.prompt.id, int(shared) - 1, margin))
            else:
                self.equal += 1
        return [not differs for differs, *_ in figures]

    def comparison(self, tie_margin: float) -> Comparison:
        """The totals. A divergence with a margin (nats) up to `tie_margin` is a tie."""
        return Comparison(
            prompts=self.prompts,
            prompts_equal=self.equal,
            tokens_compared=self.tokens,
            first_divergence=min((position for _, position, _ in self.diverged), default=None),
            divergences=tuple(
                Divergence(prompt=prompt, position=position, margin=margin, tie=margin <= tie_margin)
                for prompt, position, margin in self.diverged
            ),
            kl_mean=self.kl_sum / self.tokens,
            kl_max=self.kl_max,
            log_prob_difference_max=self.difference,
            top1_agreement=self.agreed / self.tokens,
        )


def _agreement(original: Continuation, other: Continuation) -> Tensor:
    """How far two continuations agree up to their first divergence, as float64 [7] on their device.

    The numbers are: whether they diverge, the compared tokens, those with the same most probable token, the sum and
    the largest of the KL, the largest log-prob difference, and the margin of the divergence.
    """
    differing = original.tokens != other.tokens
    first = differing.long().argmax()
    shared = torch.where(differing.any(), first + 1, len(differing))
    compared = torch.arange(len(differing), device=differing.device) < shared
    p = original.logits.double().log_softmax(-1)
    q = other.logits.double().log_softmax(-1)
    gap = p - q
    kl = torch.where(compared, (p.exp() * gap).sum(-1).clamp_min(0), 0)
    agreed = compared & (p.argmax(-1) == q.argmax(-1))
    margin = p[first, original.tokens[first]] - p[first, other.tokens[first]]
    difference = torch.where(compared, gap.abs_().amax(-1), 0).max()
    figures = differing.any(), shared, agreed.sum(), kl.sum(), kl.max(), difference, margin
    return torch.stack([figure.double() for figure in figures])


def _larger(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)
