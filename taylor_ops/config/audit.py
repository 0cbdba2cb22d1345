"""The section `audit` of the release config: which attacks are run, and whether what they get stops a release."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section

AttackName = Literal[
    "rank_one", "ratios", "collapse", "least_squares", "distillation", "warm_distillation", "fine_tuning", "lora"
]


class Thresholds(Section):
    """Per attack, the largest share of the withheld weights that it may recover to 1 % under `policy: block`.

    Weights drawn at random are within 1 % of the true ones in a share of about 0.008, more where many are near zero.
    """

    rank_one: float = Field(default=0.01, ge=0, le=1)
    """Of the attack `rank_one`."""
    ratios: float = Field(default=0.01, ge=0, le=1)
    """Of the attack `ratios`."""
    collapse: float = Field(default=0.01, ge=0, le=1)
    """Of the attack `collapse`."""
    least_squares: float = Field(default=0.01, ge=0, le=1)
    """Of the attack `least_squares`."""
    distillation: float = Field(default=0.01, ge=0, le=1)
    """Of the attack `distillation`."""
    warm_distillation: float = Field(default=0.01, ge=0, le=1)
    """Of the attack `warm_distillation`."""
    fine_tuning: float = Field(default=0.03, ge=0, le=1)
    """Of the attack `fine_tuning`."""
    lora: float = Field(default=0.03, ge=0, le=1)
    """Of the attack `lora`."""


class Audit(Section):
    """The attacks that are run against the release before it is published."""

    attacks: tuple[AttackName, ...] = ("rank_one", "ratios", "collapse")
    """Names of attacks; an empty list is reported as such in the record and on the card. `least_squares`, the two
    distillations, `fine_tuning` and `lora` take minutes and are not run unless they are named; the card names what
    was not run. The last two train on `exactness.running_text`."""
    rebuild: tuple[AttackName, ...] = ("collapse",)
    """Attacks of which the recovered weights are put back into the original architecture, to compare the tokens of the
    rebuilt model and its speed with the original's."""
    prompts: int = Field(default=24, ge=1)
    """Held-out prompts on which a rebuilt model is compared, at most."""
    new_tokens: int = Field(default=32, ge=1)
    """Tokens by which each is continued."""
    samples: int = Field(default=4096, ge=1)
    """Activations a layer that `least_squares` and the distillations sample. With fewer than a layer has neurons the
    first is under-determined."""
    steps: int = Field(default=1000, ge=1)
    """Training steps a layer of the distillations."""
    tuning_steps: int = Field(default=100, ge=1)
    """Training steps of `fine_tuning` and `lora`, on 256 tokens each."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the adapters of `lora`."""
    policy: Literal["disclose", "block"] = Field(default="disclose", validate_default=True)
    """`disclose` publishes what the attacks recovered; `block` ends the release where one gets more than its threshold
    allows, or cannot tell. With the default thresholds the attacks that run by default stop every release so far."""
    thresholds: Thresholds = Thresholds()

    @field_validator("policy")
    @classmethod
    def _a_gate_that_can_fail(cls, policy: str, info: ValidationInfo) -> str:
        if policy == "block" and info.data.get("attacks") == ():
            raise ValueError("blocks nothing where `audit.attacks` is empty; name an attack")
        return policy
