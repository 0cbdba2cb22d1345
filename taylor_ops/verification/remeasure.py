"""Measure the slowdown of a bundle again, here: on another device than its own, or to see that it is as stated."""

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
from taylor_ops.progress import Progress
from taylor_ops.source.files import is_read
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
    """What of a manifest is needed here: the slowdown that it states, and of which original in which dtype."""

    slowdown: _Slowdown
    source: _Source
    exactness: _Exactness


def remeasure(
    bundle: Path, original: Path, device: torch.device, seed: int, progress: Progress, max_pairs: int | None = None
) -> Remeasured:
    """Time `bundle` and `original` in turn, at the batch size and lengths of the release, in `max_pairs` pairs at most.

    On a device for which the manifest states nothing there is nothing to hold the slowdown to: it is what it is.

    Raises `BadInput` where the manifest lacks what it should state, the original is another one or memory does not hold
    both, `WorkFailed` where the machine is too noisy to tell whether the slowdown is as stated.
    """
    stated, name = _stated(bundle), device_description(device)
    _require_its_original(original, stated.source.sha256)
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
            "memory does not hold original and bundle side by side: what would be timed is the disk",
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
            f"{len(seconds_bundle)} pairs do not tell whether the slowdown is {settings.target_slowdown:g} within "
            f"{settings.tolerance:.0%}: it is {slowdown:.2f} (95 % interval {interval[0]:.2f} to {interval[1]:.2f})",
            "end what else runs on this machine or raise `--max-pairs`, then run again",
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
    """What is stated for a device; for one that is not named, what the plan was chosen for."""
    return next((one for one in (stated, *stated.devices) if one.device == device), stated)


def _stated(bundle: Path) -> _Stated:
    try:
        return _Stated.model_validate(read_manifest(bundle))
    except ValidationError as error:
        places = ", ".join(sorted({".".join(map(str, one["loc"])) for one in error.errors()}))
        raise BadInput(
            f"{bundle / MANIFEST} does not state what is to be measured again: {places}",
            "point the command at the folder of a bundle",
        ) from error


def _require_its_original(original: Path, sums: dict[str, str]) -> None:
    """`BadInput` with the first file of `original` that is not as it was when the bundle was made."""
    remedy = "give the original that the bundle was made of; `source` in its manifest says which"
    for name, stated in sorted(sums.items()):
        file = original / name
        if not file.is_file():
            raise BadInput(f"{file} is missing: the bundle was made of an original that has it", remedy)
        if sha256_of(file) != stated:
            raise BadInput(f"{file} does not have the bytes of the original that the bundle was made of", remedy)
    for file in sorted(original.glob("*.safetensors")):
        if is_read(file.name) and file.name not in sums:
            raise BadInput(f"{file} is not part of the original that the bundle was made of", remedy)
