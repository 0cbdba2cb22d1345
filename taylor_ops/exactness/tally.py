"""Count, position by position, how far two models agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

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
        differing = torch.nonzero(original.tokens != other.tokens).flatten()
        shared = int(differing[0]) + 1 if len(differing) else len(original.tokens)
        p = original.logits[:shared].double().log_softmax(-1)
        q = other.logits[:shared].double().log_softmax(-1)
        gap = p - q
        kl = (p.exp() * gap).sum(-1).clamp_min(0)
        self.prompts += 1
        self.tokens += shared
        self.agreed += int((p.argmax(-1) == q.argmax(-1)).sum())
        self.kl_sum += float(kl.sum())
        # max(nan, x) would forget the nan that a broken model makes.
        self.kl_max = _larger(self.kl_max, float(kl.max()))
        self.difference = _larger(self.difference, float(gap.abs_().max()))
        if len(differing):
            own, rival = p[shared - 1, [original.tokens[shared - 1], other.tokens[shared - 1]]].tolist()
            self.diverged.append((original.prompt.id, shared - 1, own - rival))
        else:
            self.equal += 1
        return not len(differing)

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


def _larger(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)
