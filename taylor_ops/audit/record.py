"""What the stage `audit` leaves: what each attack recovers."""

from __future__ import annotations

from typing import get_args

from taylor_ops.attacks.record import Task
from taylor_ops.config.audit import AttackName
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


class AuditRecord(Record):
    """The results of all attacks that were run; `skipped` when none was.

    compiled: what compiling leaves of the slowdown, whether or not there were attacks; None where the config does not
    ask for it or memory does not hold both models.
    """

    attacks: tuple[AttackResult, ...]
    skipped: bool
    compiled: Compiled | None = None

    @property
    def not_run(self) -> list[str]:
        """Names of the known attacks that are not among these."""
        run = {attack.attack for attack in self.attacks}
        return [name for name in get_args(AttackName) if name not in run]


class Compiled(Record):
    """Decode times with `torch.compile`.

    alone: the compiled bundle over the original as it is. both: the compiled bundle over the compiled original.
    """

    alone: Timed
    both: Timed
