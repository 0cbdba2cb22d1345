"""One run of the release flow: its config, where it writes, and how it performs a stage or reuses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from prefect.logging import get_run_logger

from flows.run.gpu import gpu_slot
from flows.run.progress import StageProgress
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.read import LoadedConfig, read
from taylor_ops.machine.device_errors import device_errors_explained
from taylor_ops.machine.usage import Cost, measured
from taylor_ops.progress import Progress
from taylor_ops.releases.record import StageCost
from taylor_ops.stages import Stage
from taylor_ops.storage.artifacts import alone_in
from taylor_ops.storage.files import disk_errors_explained
from taylor_ops.storage.record import Record
from taylor_ops.storage.stage_cache import kept_for, recall, remember

R = TypeVar("R", bound=Record)
_LESS_AT_ONCE = "lower the batch size or the number of tokens that the config has for this stage"

Work = Callable[[Path, Progress], R]


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

    def key(self, what: str) -> str:
        """The key under which the server keeps an artifact about this release: letters, digits and dashes."""
        return "-".join(re.findall(r"[a-z0-9]+", f"{self.config.name} {what}".lower()))

    def perform(
        self,
        stage: Stage[R],
        inputs: Mapping[str, Any],
        work: Work[R],
        folder: Path | None = None,
        device: torch.device | None = None,
        still: Callable[[R], bool] = lambda _record: True,
        less: str = _LESS_AT_ONCE,
    ) -> R:
        """Run `work` into the stage's folder, or reuse what an earlier run made of the same inputs and code.

        device: what the work computes on. A slot of a GPU is held for the work alone; waiting for it is no cost. still:
        whether what lies elsewhere, and the record speaks of, is there as it was. less: what to do where the device has
        too little memory.
        """
        folder = folder or self.stages / stage.name
        memory = self.stages / f"{stage.name}.json"
        key = stage.key(inputs)
        with measured() as cost, disk_errors_explained(self.stages):
            record = recall(memory, key, stage.record, folder)
        if record is not None and still(record):
            self._note(stage.name, cost, cached=True)
            return record
        progress = StageProgress(stage.name, self.label, self.key(stage.name))
        with (
            gpu_slot(device),
            device_errors_explained(device or torch.device("cpu"), stage.name, less),
            self.measured(stage.name),
            kept_for(key, folder),
        ):
            record = work(folder, progress)
            remember(memory, key, record, folder)
        progress.finish()
        return record

    def forget(self, stage: Stage[R]) -> None:
        """Have a stage performed again, whatever an earlier run made."""
        (self.stages / f"{stage.name}.json").unlink(missing_ok=True)

    @contextmanager
    def measured(self, stage: str) -> Iterator[list[str]]:
        """Measure a stage and note its cost; the block puts something into the list when it reused earlier work."""
        reused: list[str] = []
        with measured() as cost, disk_errors_explained(self.stages):
            yield reused
        self._note(stage, cost, cached=bool(reused))

    def _note(self, stage: str, cost: Cost, cached: bool) -> None:
        self.costs[stage] = StageCost(seconds=cost.seconds, peak_rss_bytes=cost.peak_rss_bytes, cached=cached)
        get_run_logger().info("%s: %s in %.1f s", stage, "reused" if cached else "done", cost.seconds)


def open_release(config: str, overrides: Mapping[str, str], artifacts: str) -> Release:
    """Read the config of a release; raises `BadInput` with every mistake of it."""
    return Release(read(Path(config), overrides), Path(artifacts).absolute())


def alone(release: Release) -> AbstractContextManager[None]:
    """Hold the lock of this release's folder."""
    return alone_in(release.artifacts / release.config.name)
