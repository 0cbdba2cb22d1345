"""One stage of a release as a Prefect task: reused when nothing changed, measured and reported when it runs."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect.logging import get_run_logger

from taylor_ops.config import ReleaseConfig
from taylor_ops.config_file import LoadedConfig, read
from taylor_ops.errors import WorkFailed
from taylor_ops.files import disk_errors_explained
from taylor_ops.records import Record
from taylor_ops.release_record import StageCost
from taylor_ops.resources import measured
from taylor_ops.reuse import kept_for, recall, remember, stage_key

R = TypeVar("R", bound=Record)
Progress = Callable[[int, int], None]
Work = Callable[[Path, Progress], R]

_SECONDS_BETWEEN_REPORTS = 5.0


@dataclass
class Release:
    """One run of the release flow: its config, where it writes, and what its stages have cost so far."""

    loaded: LoadedConfig
    artifacts: Path
    costs: dict[str, StageCost] = field(default_factory=dict)

    @property
    def config(self) -> ReleaseConfig:
        """The validated config."""
        return self.loaded.config

    @property
    def label(self) -> str:
        """Name and version, as runs and tasks are called after."""
        return f"{self.config.name} {self.config.version}"

    @property
    def folder(self) -> Path:
        """Where this version's bundle, record and report go."""
        return self.artifacts / self.config.name / self.config.version

    @property
    def stages(self) -> Path:
        """Where the stages work; versions of one release share it."""
        return self.artifacts / self.config.name / "stages"

    def perform(
        self,
        stage: str,
        module: str,
        record_type: type[R],
        inputs: Mapping[str, Any],
        work: Work[R],
        folder: Path | None = None,
    ) -> R:
        """Run `work` into the stage's folder, or reuse what an earlier run made of the same inputs and code."""
        folder = folder or self.stages / stage
        memory = self.stages / f"{stage}.json"
        key = stage_key(module, inputs)
        with self.measured(stage) as reused:
            record = recall(memory, key, record_type, folder)
            if record is not None:
                reused.append(stage)
                return record
            with kept_for(key, folder):
                record = work(folder, reporter(stage))
                remember(memory, key, record, folder)
            return record

    @contextmanager
    def measured(self, stage: str) -> Iterator[list[str]]:
        """Measure a stage and note its cost; the block puts something into the list when it reused earlier work."""
        reused: list[str] = []
        with measured() as cost, disk_errors_explained(self.stages):
            yield reused
        self.costs[stage] = StageCost(seconds=cost.seconds, peak_rss_bytes=cost.peak_rss_bytes, cached=bool(reused))
        get_run_logger().info("%s: %s in %.1f s", stage, "reused" if reused else "done", cost.seconds)


def open_release(config: str, overrides: Mapping[str, str], artifacts: str) -> Release:
    """Read the config of a release; raises `BadInput` with every mistake of it."""
    return Release(read(Path(config), overrides), Path(artifacts).absolute())


@contextmanager
def alone(release: Release) -> Iterator[None]:
    """Hold the lock of this release's folder: two runs of one release in one place would undo each other's work."""
    place = release.artifacts / release.config.name
    with disk_errors_explained(place):
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkFailed(
                f"another run of {release.config.name} is at work in {place}",
                "wait for it to end, or give this run another --artifacts folder",
            ) from None
        yield


def reporter(stage: str) -> Progress:
    """A progress function that logs now and then."""
    logger = get_run_logger()
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            logger.info("%s: %d of %d", stage, done, total)

    return report
