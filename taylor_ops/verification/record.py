"""What the stage `verify` and the command `calibrate` leave: their records."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Remeasured(Record):
    """The slowdown of a bundle here, beside what its manifest states. seconds_*: raw samples of the pairs.

    target, tolerance: what the manifest states for the device `stated_for`: this one, or that of the calibration where
    nothing is stated for this one. as_stated: whether the slowdown is within that tolerance, as the samples tell; None
    where nothing is stated for this device. settled: whether the interval is as narrow as that tolerance asks for.
    """

    slowdown: float
    ci95: tuple[float, float]
    as_stated: bool | None
    settled: bool
    device: str
    target: float
    tolerance: float
    stated_for: str
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    seconds_original: tuple[float, ...]
    seconds_bundle: tuple[float, ...]


class Verified(Record):
    """What was checked: files by hash, and prompts continued with the recorded tokens. signed_by: whose
    signature was checked, if any."""

    files: int
    prompts: int
    tokens: int
    signed_by: str | None = None
