"""The section `latency` of a release config: the slowdown that is promised, and how it is measured."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import DEVICE, Section


class Shape(Section):
    """How a decode step is run: so many sequences at once, each behind a prompt of so many tokens."""

    batch_size: int = Field(ge=1)
    """Sequences that are decoded at once."""
    prompt_tokens: int = Field(ge=1)
    """Tokens of the prompt before each."""


class DeviceTarget(Section):
    """A slowdown that is promised on one more device of the machine that calibrates."""

    device: str = Field(pattern=DEVICE)
    """`cpu`, `cuda` or `cuda:N`; `auto` takes a GPU where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """Of the processor; as many as torch takes by itself where it is left out."""
    target_slowdown: float = Field(gt=1, le=100)
    """Decode time of the bundle over that of the original, on this device."""
    tolerance: float = Field(default=0.1, gt=0, le=0.5)
    """Largest relative distance from the target; the plan is chosen for `device` of the release, so this is wider."""


class Latency(Section):
    """The slowdown that is promised, and how it is measured."""

    target_slowdown: float = Field(default=3.5, gt=1, le=100)
    """Decode time of the bundle over that of the original."""
    tolerance: float = Field(default=0.03, gt=0, le=0.5)
    """Largest relative distance of the achieved slowdown from the target."""
    batch_size: int = Field(default=1, ge=1)
    """Sequences that are decoded at once where the target holds."""
    prompt_tokens: int = Field(default=64, ge=1)
    """Tokens of the prompt before each."""
    new_tokens: int = Field(default=24, ge=4)
    """Forced output length of both models in each sample."""
    pairs: int = Field(default=7, ge=7)
    """Pairs of samples a candidate gets at least: so many can tell that it misses the target, 11 that it meets it."""
    max_pairs: int = Field(default=141, ge=11, validate_default=True)
    """Most pairs a candidate gets on a noisy machine, before the release ends with what to do about it."""
    min_seconds: float = Field(default=2.0, ge=0, le=3600)
    """How long the samples of a candidate last at least, all together, before it is said to meet the target."""
    disturbance: float = Field(default=0.15, ge=0, le=1)
    """Largest share of the time of a pair for which a thread may wait for a processor that other programs have; a pair
    above is timed again. A Prefect server beside the run takes a part of what is allowed. 1 lets all pass, and the
    slowdown is then that of a busy machine. Of Linux alone."""
    warmup: int = Field(default=1, ge=1)
    """Pairs that are run before any is counted."""
    max_trials: int = Field(default=8, ge=1)
    """Most candidates that are measured; most calibrations need one to four."""
    columns: int | None = Field(default=None, ge=1)
    """The plan with so many stacked columns, as an earlier release of the same inputs found it, is the only candidate:
    its bundle has the same bytes, where a search may end at a neighbour from run to run."""
    also: tuple[Shape, ...] = (Shape(batch_size=1, prompt_tokens=512), Shape(batch_size=8, prompt_tokens=64))
    """Other batch sizes and prompt lengths at which the chosen plan is timed; no target is set for them."""
    also_pairs: int = Field(default=7, ge=6)
    """Pairs at each of them; fewer than 6 give no 95 % interval of a median."""
    devices: tuple[DeviceTarget, ...] = ()
    """Slowdowns that hold on other devices of the same machine; a release that misses one is not published."""
    compiled: bool = False
    """Measure also what is left of the slowdown when both models are compiled with `torch.compile`. That takes minutes
    and a C++ compiler, and is done with the audit."""

    @field_validator("max_pairs")
    @classmethod
    def _no_fewer_than_at_least(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("pairs", most):
            raise ValueError(f"must be at least `pairs`, which is {info.data['pairs']}")
        return most
