"""The record of the stage `audit`: what each attack recovers."""

from __future__ import annotations

from typing import get_args

from taylor_ops.attacks.record import Task
from taylor_ops.storage.record import Record


class Timed(Record):
    """Decode time of another model over the decode time of the original, timed in turn.

    Attributes:
        slowdown: Median over pairs.
        ci95: Its 95 % interval.
        settled: Whether the interval is as narrow as intended. On a noisy machine it is not.
        device: Description of the device.
        seconds_original: Time of the original in each pair.
        seconds_other: Time of the other model in each pair.
    """

    slowdown: float
    ci95: tuple[float, float]
    settled: bool
    device: str
    seconds_original: tuple[float, ...]
    seconds_other: tuple[float, ...]


class Rebuilt(Record):
    """The original architecture with recovered weights, compared with the original on held-out prompts.

    Tokens are greedy and compared position by position. KL(original || rebuilt) is in nats per token.

    Attributes:
        residual: What is left of the slowdown. None if memory does not hold both models, because the disk would be
            timed then.
    """

    prompts: int
    prompts_equal: int
    tokens_compared: int
    kl_mean: float
    kl_max: float
    top1_agreement: float
    residual: Timed | None


class AttackResult(Record):
    """What an attack recovered of the protected output weights.

    Attributes:
        attack: Name of the attack.
        source: Where it was published.
        assumptions: What the attacker sees.
        budget: What the attack may spend.
        weights: Number of the protected weights.
        recovered_1pct: Share of the protected weights within 1 % of the root mean square of their neuron.
        recovered_01pct: Share within 0.1 %.
        cosine_median: Median cosine of a recovered column and the true one, sign included.
        cosine_worst: Smallest cosine.
        under_determined: Why the attack cannot determine all weights; None if it can. Weights that it left open count
            as not recovered.
        intervals_found: Share of neurons whose interval the terms alone give away, among the neurons whose orders are
            high enough to find it. None if the attack does not look for intervals, or if no neuron has such an order.
        intervals_asked: Share of all neurons whose orders are high enough. None if the attack does not look for
            intervals.
        task: What training for a task did, for an attack that trains.
        rebuilt: How the rebuilt model compares. None if the config does not ask for it.
        seconds: Time of the attack alone, without scoring. What several attacks need of a layer is read or computed
            once, in the time of the first of them.
        peak_rss_bytes: Peak memory of this process while the attack was at work on a layer, or in training.
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


class AuditRecord(Record):
    """The results of all attacks that were run.

    Attributes:
        attacks: One result for each attack.
        skipped: Whether no attack was run.
        compiled: What compiling leaves of the slowdown, with or without attacks. None if the config does not ask for it
            or memory does not hold both models.
    """

    attacks: tuple[AttackResult, ...]
    skipped: bool
    compiled: Compiled | None = None

    @property
    def not_run(self) -> list[str]:
        """Names of the attacks that were not run."""
        run = {attack.attack for attack in self.attacks}
        # The sections of the config take long to load for who reads a record alone.
        from taylor_ops.config.audit import AttackName

        return [name for name in get_args(AttackName) if name not in run]


class Compiled(Record):
    """Decode times with `torch.compile`.

    Attributes:
        alone: The compiled bundle over the original, not compiled.
        both: The compiled bundle over the compiled original.
    """

    alone: Timed
    both: Timed
