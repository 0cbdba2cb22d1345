"""The section `latency` of a release config: the slowdown that a release promises, and how it is measured."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import DEVICE, Section


class Shape(Section):
    """The batch size and the prompt length of a decode step."""

    batch_size: int = Field(ge=1)
    """Number of sequences that are decoded at once."""
    prompt_tokens: int = Field(ge=1)
    """Length of the prompt before each sequence, in tokens."""


class DeviceTarget(Section):
    """A slowdown that a release promises on one more device of the machine that calibrates."""

    device: str = Field(pattern=DEVICE)
    """`cpu`, `cuda` or `cuda:N`. `auto` takes a GPU if there is one."""
    threads: int | None = Field(default=None, ge=1)
    """Number of processor threads. Without it, torch chooses the number."""
    target_slowdown: float = Field(gt=1, le=100)
    """Decode time of the bundle divided by the decode time of the original, on this device."""
    tolerance: float = Field(default=0.1, gt=0, le=0.5)
    """Largest relative distance of the slowdown from the target. By default it is wider than `latency.tolerance`,
    because the plan is chosen for the `device` of the release."""


class Latency(Section):
    """The slowdown that a release promises, and how it is measured."""

    target_slowdown: float = Field(default=3.5, gt=1, le=100)
    """Decode time of the bundle divided by the decode time of the original."""
    tolerance: float = Field(default=0.03, gt=0, le=0.5)
    """Largest relative distance of the achieved slowdown from the target."""
    batch_size: int = Field(default=1, ge=1)
    """Number of sequences that are decoded at once. The target holds for this number."""
    prompt_tokens: int = Field(default=64, ge=1)
    """Length of the prompt before each sequence, in tokens."""
    new_tokens: int = Field(default=4, ge=4)
    """Number of tokens that both models have to generate in each sample. Short samples lose little when other programs
    disturb one, and the measurement ends as soon as it is decided."""
    pairs: int = Field(default=7, ge=7)
    """Smallest number of pairs for a candidate in one loading of the models. Seven pairs can show that it misses the
    target, and several loadings that it meets the target."""
    max_pairs: int = Field(default=600, ge=11, validate_default=True)
    """Largest number of pairs for a candidate in one loading of the models. If they do not suffice on a noisy machine,
    the release ends and says what to do about it."""
    min_seconds: float | None = Field(default=None, ge=0, le=3600)
    """Time in seconds that the samples of a candidate must take in total before it can meet the target. Without this
    key, it is one second divided by `tolerance`: a machine may be a little slower for seconds at a time, which matters
    more the narrower the tolerance is."""
    disturbance: float = Field(default=0.15, ge=0, le=1)
    """Largest share of a pair's time that a thread may wait for a processor that other programs use. A pair with a
    larger share is timed again. A Prefect server on the same machine takes a part of this share. 1 accepts every pair,
    so that the slowdown may be measured on a busy machine. Only Linux reports these waits. On other systems,
    every pair counts."""
    warmup: int = Field(default=1, ge=1)
    """Number of pairs that are run before the first one counts."""
    max_trials: int = Field(default=8, ge=1)
    """Largest number of candidates that are measured. Most calibrations need one to four."""
    columns: int | None = Field(default=None, ge=1)
    """Make the plan with this number of stacked columns the only candidate. Take the number from an earlier release of
    the same inputs: the bundle then has the same bytes. A search may end at a neighbouring plan from run to run."""
    also: tuple[Shape, ...] = (Shape(batch_size=1, prompt_tokens=512), Shape(batch_size=8, prompt_tokens=64))
    """Other batch sizes and prompt lengths at which the chosen plan is timed. They have no target."""
    also_pairs: int = Field(default=7, ge=6)
    """Number of pairs at each entry of `also`. Fewer than 6 give no 95 % interval of a median."""
    devices: tuple[DeviceTarget, ...] = ()
    """Slowdowns that the release promises on other devices of the same machine. A release that misses one is not
    published."""
    compiled: bool = False
    """Also measure the slowdown that is left when both models are compiled with `torch.compile`. The audit does this.
    It takes minutes and needs a C++ compiler."""

    @property
    def least_seconds(self) -> float:
        """Seconds that the samples of a candidate must take in total before it can meet the target."""
        return 1 / self.tolerance if self.min_seconds is None else self.min_seconds

    @field_validator("max_pairs")
    @classmethod
    def _no_fewer_than_at_least(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("pairs", most):
            raise ValueError(f"must be at least `pairs`, which is {info.data['pairs']}")
        return most
