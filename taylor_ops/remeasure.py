"""Measure the slowdown of a bundle again, here: on another device than its own, or to see that it is as stated."""

from __future__ import annotations

from pathlib import Path

import torch

from taylor_ops.calibration import Progress, slowdown_of, steady_pairs
from taylor_ops.config import Latency
from taylor_ops.errors import BadInput
from taylor_ops.latency import device_description, pairs_of
from taylor_ops.models import load_both
from taylor_ops.records import Record
from taylor_ops.verify import read_manifest


class Remeasured(Record):
    """The slowdown of a bundle here, beside what its manifest states. seconds_*: raw samples of the pairs."""

    slowdown: float
    ci95: tuple[float, float]
    device: str
    target: float
    tolerance: float
    released_on: str
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    seconds_original: tuple[float, ...]
    seconds_bundle: tuple[float, ...]

    @property
    def as_stated(self) -> bool:
        """Whether the whole interval is within the tolerance of the target."""
        low, high = (self.target * (1 + side * self.tolerance) for side in (-1, 1))
        return low <= self.ci95[0] and self.ci95[1] <= high


def remeasure(bundle: Path, original: Path, device: torch.device, seed: int, progress: Progress) -> Remeasured:
    """Time `bundle` and `original` in turn, at the batch size and lengths of the release.

    Raises `BadInput` where memory does not hold both, `WorkFailed` where the machine is too noisy to tell.
    """
    manifest = read_manifest(bundle)
    stated = manifest["slowdown"]
    settings = Latency(
        target_slowdown=stated["target"],
        tolerance=stated["tolerance"],
        batch_size=stated["batch_size"],
        prompt_tokens=stated["prompt_tokens"],
        new_tokens=stated["new_tokens"],
    )
    first, second = load_both(original, bundle, manifest["exactness"]["dtype"], device)
    if hasattr(first, "hf_device_map"):
        raise BadInput(
            "memory does not hold original and bundle side by side: what would be timed is the disk",
            "run on a device with more memory",
        )
    seconds = steady_pairs(pairs_of(first, second, settings, seed), settings, progress)
    slowdown, interval = slowdown_of(*seconds, seed)
    return Remeasured(
        slowdown=slowdown,
        ci95=interval,
        device=device_description(device),
        target=settings.target_slowdown,
        tolerance=settings.tolerance,
        released_on=stated["device"],
        batch_size=settings.batch_size,
        prompt_tokens=settings.prompt_tokens,
        new_tokens=settings.new_tokens,
        seconds_original=tuple(seconds[0]),
        seconds_bundle=tuple(seconds[1]),
    )
