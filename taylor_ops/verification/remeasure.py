"""Measure the slowdown of a bundle again, to check what its manifest states, or on another device."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ConfigDict, Field, ValidationError

from taylor_ops.bundle.manifest import MANIFEST, read_manifest
from taylor_ops.config.conversion import DtypeName
from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.latency.judging import judged_pairs, slowdown_of, timed_pairs
from taylor_ops.latency.timing import pairs_of
from taylor_ops.machine.devices import device_description
from taylor_ops.model.loading import load_in_memory
from taylor_ops.model.weight_files import weight_files
from taylor_ops.progress import Progress
from taylor_ops.storage.files import sha256_of
from taylor_ops.storage.record import Record
from taylor_ops.verification.record import Remeasured


class _Part(Record):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Target(_Part):
    target: float = Field(gt=1, le=100)
    tolerance: float = Field(gt=0, le=0.5)
    device: str


class _Slowdown(_Target):
    batch_size: int = Field(ge=1)
    prompt_tokens: int = Field(ge=1)
    new_tokens: int = Field(ge=4)
    devices: tuple[_Target, ...] = ()


class _Source(_Part):
    sha256: dict[str, str]


class _Exactness(_Part):
    dtype: DtypeName


class _Stated(_Part):
    """The part of a manifest that is needed here: the stated slowdown, the files of the original, and the dtype."""

    slowdown: _Slowdown
    source: _Source
    exactness: _Exactness


def remeasure(
    bundle: Path, original: Path, device: torch.device, seed: int, progress: Progress, max_pairs: int | None = None
) -> Remeasured:
    """Time `bundle` and `original` in turn, at the batch size and lengths of the release.

    If the manifest states nothing for this device, the slowdown is measured but not judged.

    Args:
        bundle: Folder of the bundle.
        original: Folder of the original that it was made of.
        device: Device to measure on.
        seed: Seed of the random choices.
        progress: Receives the number of pairs so far and the most that may be taken.
        max_pairs: The most pairs to take. None: the default of `latency.max_pairs`.

    Raises:
        BadInput: The manifest lacks what it should state, the original is another one, or memory does not hold both.
        WorkFailed: The machine is too noisy to decide whether the slowdown is as stated.
    """
    stated, name = _statements_of(bundle), device_description(device)
    require_its_original(original, stated.source.sha256)
    target = _target_of(name, stated.slowdown)
    settings = Latency(
        target_slowdown=target.target,
        tolerance=target.tolerance,
        batch_size=stated.slowdown.batch_size,
        prompt_tokens=stated.slowdown.prompt_tokens,
        new_tokens=stated.slowdown.new_tokens,
        max_pairs=max_pairs or Latency().max_pairs,
    )
    loaded = load_in_memory(original, bundle, stated.exactness.dtype, device)
    if loaded is None:
        raise BadInput(
            "memory does not hold original and bundle side by side, so that reading the disk would be timed",
            "run on a device with more memory",
        )
    verdict = None
    if target.device == name:
        seconds_original, seconds_bundle, verdict = judged_pairs(pairs_of(*loaded, settings, seed), settings, progress)
        settled = verdict in ("met", "missed")
    else:
        lenient = settings.model_copy(update={"disturbance": 1.0})
        seconds_original, seconds_bundle, settled = timed_pairs(pairs_of(*loaded, lenient, seed), lenient, progress)
    slowdown, interval = slowdown_of(seconds_original, seconds_bundle, seed)
    if verdict is not None and not settled:
        raise WorkFailed(
            f"{len(seconds_bundle)} pairs do not decide whether the slowdown is {settings.target_slowdown:g} within "
            f"{settings.tolerance:.0%}: it is {slowdown:.2f} (95 % interval {interval[0]:.2f} to {interval[1]:.2f})",
            "stop other programs on this machine or raise `--max-pairs`, then run again",
        )
    return Remeasured(
        slowdown=slowdown,
        ci95=interval,
        as_stated=None if verdict is None else verdict == "met",
        settled=settled,
        device=name,
        target=settings.target_slowdown,
        tolerance=settings.tolerance,
        stated_for=target.device,
        batch_size=settings.batch_size,
        prompt_tokens=settings.prompt_tokens,
        new_tokens=settings.new_tokens,
        seconds_original=tuple(seconds_original),
        seconds_bundle=tuple(seconds_bundle),
    )


def _target_of(device: str, stated: _Slowdown) -> _Target:
    """The target that is stated for a device, or that of the calibration if the device is not named."""
    return next((target for target in (stated, *stated.devices) if target.device == device), stated)


def _statements_of(bundle: Path) -> _Stated:
    try:
        return _Stated.model_validate(read_manifest(bundle))
    except ValidationError as error:
        places = ", ".join(sorted({".".join(map(str, detail["loc"])) for detail in error.errors()}))
        raise BadInput(
            f"{bundle / MANIFEST} does not state what a new measurement needs: {places}",
            "point the command at the folder of a bundle",
        ) from error


def require_its_original(original: Path, sums: dict[str, str]) -> None:
    """Raise `BadInput` with the first file of `original` that differs from the original of the bundle."""
    remedy = "give the original that the bundle was made of; `source` in its manifest says which"
    for name, stated in sorted(sums.items()):
        file = original / name
        if not file.is_file():
            raise BadInput(f"{file} is missing: the bundle was made of an original that has it", remedy)
        if sha256_of(file) != stated:
            raise BadInput(f"{file} does not have the bytes of the original that the bundle was made of", remedy)
    for name in weight_files(original).read():
        if name not in sums:
            raise BadInput(f"{original / name} is not part of the original that the bundle was made of", remedy)
