"""What the stage `verify` and the command `calibrate` leave: their records."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Remeasured(Record):
    """The slowdown of a bundle on this device, beside the slowdown that its manifest states.

    Attributes:
        slowdown: Median over the pairs.
        ci95: Its 95 % interval.
        as_stated: Whether the slowdown is within `tolerance` of `target`, as the samples show. None if the manifest
            states nothing for this device.
        settled: Whether the interval is as narrow as `tolerance` requires.
        device: This device.
        target: Target that the manifest states for the device `stated_for`.
        tolerance: Its tolerance.
        stated_for: This device, or the device of the calibration if the manifest states nothing for this device.
        batch_size: Batch size of the pairs.
        prompt_tokens: Length of the prompts.
        new_tokens: Number of decoded tokens.
        seconds_original: Raw samples of the original, one a pair.
        seconds_bundle: Raw samples of the bundle, one a pair.
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
    """What was checked of a bundle.

    Attributes:
        files: Number of files whose hash is that of the manifest.
        prompts: Number of prompts that the bundle continued with the recorded tokens.
        tokens: Number of these tokens.
        attestations: Number of attestations that say what the manifest says, and are signed if it is by a key.
        signed_by: Whose signature was checked, if any.
    """

    files: int
    attestations: int = 0
    prompts: int
    tokens: int
    signed_by: str | None = None
