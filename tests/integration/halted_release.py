"""The release flow as a deployment of the tests runs it: it stops in a stage that a test names, to be killed there.

The artifacts folder says what is wanted: `halt` holds the name of the stage, the pipes `halted` and `go` say that it
stopped and may go on, a file `gpu` has every stage that computes hold a slot of the limit `gpu`. `finished` gets a line
for every stage whose work came to its end, `held` for every slot when it was taken and given back. The clock of the
calibration is simulated, so that all runs choose the same plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from prefect import flow

from flows import release as released
from flows import stage, stages
from flows.expected import Expected
from flows.overrides import Overrides
from taylor_ops import latency
from taylor_ops.release_record import ReleaseRecord
from tests.flows.conftest import decode_seconds

# What the stages wrapped here are without it.
_MEASURED, _WRITE_REPORT, _GPU_SLOT = stage.Release.measured, stages.write_report, stage.gpu_slot


def halt(artifacts: Path, name: str) -> None:
    """Stop before the work of a stage where a test says so."""
    wanted = artifacts / "halt"
    if wanted.exists() and wanted.read_text() == name:
        wanted.unlink()
        # Each end of a pipe waits for the other to be opened.
        (artifacts / "halted").write_text(str(os.getpid()))
        (artifacts / "go").read_text()


def watch(artifacts: Path) -> None:
    """Put `halt` before the work of every stage, and the simulated clock into the calibration."""

    @contextmanager
    def measured(self: stage.Release, name: str) -> Iterator[list[str]]:
        with _MEASURED(self, name) as reused:
            halt(artifacts, name)
            yield reused
            with (artifacts / "finished").open("a") as lines:
                lines.write("" if reused else f"{name}\n")

    def write_report(record: ReleaseRecord, path: Path) -> None:
        halt(artifacts, "report")
        _WRITE_REPORT(record, path)

    @contextmanager
    def gpu_slot(device: torch.device | None) -> Iterator[None]:
        wanted = device is not None and (artifacts / "gpu").exists()
        with _GPU_SLOT(torch.device("cuda") if wanted else None):
            taken = time.monotonic()
            yield
            with (artifacts / "held").open("a") as lines:
                lines.write(f"{taken} {time.monotonic()}\n" if wanted else "")

    stage.Release.measured = measured  # type: ignore[method-assign]
    stages.write_report = write_report
    stage.gpu_slot = gpu_slot
    latency.decode_seconds = decode_seconds


@flow(name="release", flow_run_name=released._run_name)
def release(
    config: str,
    overrides: Overrides = {},  # noqa: B006
    artifacts: str = "artifacts",
    expected: Expected = "",
) -> ReleaseRecord:
    """The release, watched."""
    watch(Path(artifacts))
    return released.release.fn(config, overrides, artifacts, expected)
