"""The section `audit` of a release config: which attacks run, and whether what they recover stops a release."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section

AttackName = Literal[
    "rank_one", "ratios", "collapse", "least_squares", "distillation", "warm_distillation", "fine_tuning", "lora"
]


class Thresholds(Section):
    """Largest share of the protected weights that each attack may recover to 1 % under `policy: block`.

    Of weights drawn at random, a share of about 0.008 is within 1 % of the true ones, and more if many are near zero.
    """

    rank_one: float = Field(default=0.01, ge=0, le=1)
    """Largest share for the attack `rank_one`."""
    ratios: float = Field(default=0.01, ge=0, le=1)
    """Largest share for the attack `ratios`."""
    collapse: float = Field(default=0.01, ge=0, le=1)
    """Largest share for the attack `collapse`."""
    least_squares: float = Field(default=0.01, ge=0, le=1)
    """Largest share for the attack `least_squares`."""
    distillation: float = Field(default=0.01, ge=0, le=1)
    """Largest share for the attack `distillation`."""
    warm_distillation: float = Field(default=0.01, ge=0, le=1)
    """Largest share for the attack `warm_distillation`."""
    fine_tuning: float = Field(default=0.03, ge=0, le=1)
    """Largest share for the attack `fine_tuning`."""
    lora: float = Field(default=0.03, ge=0, le=1)
    """Largest share for the attack `lora`."""


class Audit(Section):
    """The attacks that the release runs against itself before it is published."""

    attacks: tuple[AttackName, ...] = ("rank_one", "ratios", "collapse")
    """Names of the attacks to run. If the list is empty, the record and the card say so. `least_squares`,
    `distillation`, `warm_distillation`, `fine_tuning` and `lora` take minutes and run only if they are named. The card
    names the attacks that did not run. `fine_tuning` and `lora` train on `exactness.running_text`."""
    rebuild: tuple[AttackName, ...] = ("collapse",)
    """Attacks whose recovered weights are put back into the original architecture. The rebuilt model is
    then compared with the original in tokens and in speed."""
    prompts: int = Field(default=24, ge=1)
    """Largest number of held-out prompts on which a rebuilt model is compared."""
    new_tokens: int = Field(default=32, ge=1)
    """Number of tokens that are generated after each of these prompts."""
    samples: int = Field(default=4096, ge=1)
    """Number of activations per layer that `least_squares` and the two distillations sample. If a layer has more
    neurons than this, `least_squares` is under-determined."""
    steps: int = Field(default=1000, ge=1)
    """Training steps of the two distillations for each layer."""
    tuning_steps: int = Field(default=100, ge=1)
    """Training steps of `fine_tuning` and `lora`. Each step trains on 256 tokens."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the adapters that `lora` trains."""
    policy: Literal["disclose", "block"] = Field(default="disclose", validate_default=True)
    """`disclose` publishes the release and states what the attacks recovered. `block` ends the release if an attack
    recovers more than its threshold allows, or if it is under-determined. With the default thresholds, the attacks that
    run by default have stopped every release so far."""
    thresholds: Thresholds = Thresholds()

    @field_validator("policy")
    @classmethod
    def _a_gate_that_can_fail(cls, policy: str, info: ValidationInfo) -> str:
        if policy == "block" and info.data.get("attacks") == ():
            raise ValueError("blocks nothing when `audit.attacks` is empty; name an attack")
        return policy
