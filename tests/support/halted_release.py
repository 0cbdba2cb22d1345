"""The release flow as a deployment of the tests runs it: it stops at a place that a test names, to be killed there.

The artifacts folder says what is wanted: `halt` holds the name of a stage or of one of `PLACES`, the pipes `halted` and
`go` say that it stopped and may go on, a file `gpu` has every stage that computes hold a slot of the limit `gpu`.
`finished` gets a line for every stage whose work came to its end, `held` for every slot when it was taken and given
back. Every layer is a part of the conversion; the clock is simulated, so that all runs choose the same plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from prefect import flow

from flows import release as released
from flows.parameters import Expected, PublishTo, Slowdown, Version
from flows.run import release_run
from flows.tasks import report
from taylor_ops.capture.resumable import Unfinished
from taylor_ops.conversion import convert, parts
from taylor_ops.latency import timing
from taylor_ops.model import shards
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.releases.report import Plot
from tests.support.tiny_release import decode_seconds

PLACES = ("in a layer", "between layers", "in a shard")
"""Of capture when a layer has run on one batch of several; of conversion when two parts are finished and the third is
not begun, and when half of its shard is written."""

# What is wrapped here, without it.
_MEASURED, _WRITE_REPORT, _GPU_SLOT = release_run.ReleaseRun.measured, report.write_report, release_run.gpu_slot
_READ, _CONVERT_PART, _WRITE_TENSORS = Unfinished.read, convert._convert_part, shards.write_tensors


def halt(artifacts: Path, name: str) -> None:
    """Stop here where a test says so."""
    wanted = artifacts / "halt"
    if wanted.exists() and wanted.read_text() == name:
        wanted.unlink()
        # Each end of a pipe waits for the other to be opened.
        (artifacts / "halted").write_text(str(os.getpid()))
        (artifacts / "go").read_text()


def watch_stages(artifacts: Path) -> None:
    """Put `halt` before the work of every stage."""

    @contextmanager
    def measured(self: release_run.ReleaseRun, name: str) -> Iterator[list[str]]:
        with _MEASURED(self, name) as reused:
            halt(artifacts, name)
            yield reused
            with (artifacts / "finished").open("a") as lines:
                lines.write("" if reused else f"{name}\n")

    def write_report(record: ReleaseRecord, path: Path) -> list[Plot]:
        halt(artifacts, "report")
        return _WRITE_REPORT(record, path)

    @contextmanager
    def gpu_slot(device: torch.device | None) -> Iterator[None]:
        wanted = device is not None and (artifacts / "gpu").exists()
        with _GPU_SLOT(torch.device("cuda") if wanted else None):
            taken = time.monotonic()
            yield
            with (artifacts / "held").open("a") as lines:
                lines.write(f"{taken} {time.monotonic()}\n" if wanted else "")

    release_run.ReleaseRun.measured = measured  # type: ignore[method-assign]
    report.write_report = write_report
    release_run.gpu_slot = gpu_slot


def watch_parts(artifacts: Path) -> None:
    """Put `halt` into capture and conversion."""
    made: list[Any] = []

    def read(self: Unfinished, layer: int, batch: int) -> Any:
        if (layer, batch) == (1, 1):
            halt(artifacts, "in a layer")
        return _READ(self, layer, batch)

    def convert_part(*given: Any) -> None:
        if len(made) == 2:
            halt(artifacts, "between layers")
        _CONVERT_PART(*given)
        made.append(given)

    def write_tensors(tensors: Any, path: Path) -> None:
        _WRITE_TENSORS(tensors, path)
        if (artifacts / "halt").exists() and (artifacts / "halt").read_text() == "in a shard":
            os.truncate(path, path.stat().st_size // 2)
            halt(artifacts, "in a shard")

    Unfinished.read = read  # type: ignore[method-assign]
    convert._convert_part = convert_part
    shards.write_tensors = write_tensors


def watch(artifacts: Path) -> None:
    """Have the releases of this process halt, each layer be a part, and the clock be simulated."""
    watch_stages(artifacts)
    watch_parts(artifacts)
    parts._PART_VALUES = 0
    timing.decode_seconds = decode_seconds


@flow(name="release", flow_run_name=released._run_name)
def release(
    config: str,
    version: Version = "",
    target_slowdown: Slowdown = None,
    publish_to: PublishTo = "",
    comment: str = "",
    dry_run: bool = False,
    more: str = "",
    artifacts: str = "artifacts",
    expected: Expected = "",
) -> ReleaseRecord | None:
    """The release, watched."""
    watch(Path(artifacts))
    given = (config, version, target_slowdown, publish_to, comment, dry_run, more, artifacts, expected)
    return released.release.fn(*given)
