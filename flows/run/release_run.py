"""One run of the release flow: its config, its folders, and how it performs a stage or reuses its result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from prefect.logging import get_run_logger

from flows.run.gpu import gpu_slot
from flows.run.log_filter import secrets_kept
from flows.run.progress import StageProgress
from flows.run.pulse import Pulse
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.read import LoadedConfig, read
from taylor_ops.conversion.terms import Subject
from taylor_ops.evidence.mark import copy_under
from taylor_ops.evidence.marking import Copy
from taylor_ops.latency.bench import Bench
from taylor_ops.machine.device_errors import device_errors_explained
from taylor_ops.machine.devices import device_named
from taylor_ops.machine.usage import Usage, measured
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.releases.record import StageCost
from taylor_ops.signing.configured import signer_of
from taylor_ops.signing.signers import Signer
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import CAPTURE, CONVERT, MARK, Stage
from taylor_ops.storage.artifacts import Artifacts, ReleaseFolder, VersionFolder
from taylor_ops.storage.files import disk_errors_explained
from taylor_ops.storage.record import Record
from taylor_ops.storage.stage_cache import kept_for, recall, remember

R = TypeVar("R", bound=Record)
_LESS_AT_ONCE = "lower the batch size or the number of tokens that the config has for this stage"

Work = Callable[[Path, Progress], R]


@dataclass
class ReleaseRun:
    """One run of the release flow: its config, its folders, the costs of its stages so far, and what is in memory.

    Its pulse beats while the flow is at work, and neither while it is suspended nor when it has ended.
    """

    loaded: LoadedConfig
    artifacts: Artifacts
    costs: dict[str, StageCost] = field(default_factory=dict)
    bench: Bench = field(default_factory=Bench)
    pulse: Pulse = field(default_factory=Pulse)

    @property
    def config(self) -> ReleaseConfig:
        """The validated config."""
        return self.loaded.config

    @property
    def label(self) -> str:
        """Name and version, after which runs and tasks are called."""
        return f"{self.config.name} {self.config.version}"

    @property
    def place(self) -> ReleaseFolder:
        """The folder of this release, whose stages all its versions share."""
        return self.artifacts.release(self.config.name)

    @property
    def results(self) -> VersionFolder:
        """The folder of this version: its bundle, record and report."""
        return self.place.version(self.config.version)

    @property
    def model_folder(self) -> Path:
        """The folder of the released model: the marked one if the config names a recipient, else the converted one."""
        return self.place.stage((CONVERT if self.config.evidence is None else MARK).name)

    @cached_property
    def device(self) -> torch.device:
        """The device on which the stages compute. Raises `BadInput` if this machine lacks it."""
        return device_named(self.config.device)

    @cached_property
    def copy(self) -> Copy | None:
        """The copy that the config asks for, None without a recipient. Raises `BadInput` if its key cannot be read."""
        marking = self.config.evidence
        return None if marking is None else copy_under(marking, self.config.version)

    @cached_property
    def signer(self) -> Signer | None:
        """Who signs, or None if nobody does. Raises `BadInput` if the configured signer cannot sign."""
        signing = self.config.publish.signing
        return None if signing is None else signer_of(signing)

    def ranges_file(self, ranges: CapturedRanges) -> Path:
        """The file with the captured ranges."""
        return self.place.stage(CAPTURE.name) / ranges.file

    def subject(self, source: ResolvedSource, ranges: CapturedRanges) -> Subject:
        """What the series are made from."""
        return Subject(Original(source.folder), self.ranges_file(ranges), self.config.conversion)

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

        A GPU slot is held only for the work. Waiting for it does not count as cost.

        Args:
            stage: The stage.
            inputs: The inputs that decide its result.
            work: Takes the folder and the progress, and returns the record.
            folder: Folder into which the work writes, if not the folder of the stage.
            device: Device on which the work computes; None for work that uses no device.
            still: Whether files outside the folder that a record refers to are unchanged.
            less: Remedy for a device with too little memory.
        """
        folder = folder or self.place.stage(stage.name)
        memory = self.place.memory(stage.name)
        key = stage.key(inputs)
        with measured() as cost, disk_errors_explained(self.place.stages):
            record = recall(memory, key, stage.record, folder)
        if record is not None and still(record):
            self._note(stage.name, cost, cached=True)
            return record
        with (
            gpu_slot(device),
            device_errors_explained(device or torch.device("cpu"), stage.name, less),
            self.measured(stage.name),
            self.shown(stage.name) as progress,
            kept_for(key, folder),
            secrets_kept(),
        ):
            record = work(folder, progress)
            remember(memory, key, record, folder)
        return record

    def forget(self, stage: Stage[R]) -> None:
        """Have a stage performed again, even if an earlier run has made its result."""
        self.place.memory(stage.name).unlink(missing_ok=True)

    def shown(self, stage: str) -> StageProgress:
        """The progress of a stage, for a `with` block around its work."""
        return StageProgress(stage, self.label, self.key(stage))

    @contextmanager
    def measured(self, stage: str) -> Iterator[list[str]]:
        """Measure a stage and note its cost. The block adds an item to the list if it reused earlier work."""
        reused: list[str] = []
        with measured() as cost, disk_errors_explained(self.place.stages):
            yield reused
        self._note(stage, cost, cached=bool(reused))

    def _note(self, stage: str, cost: Usage, cached: bool) -> None:
        self.costs[stage] = StageCost(seconds=cost.seconds, peak_rss_bytes=cost.peak_rss_bytes, cached=cached)
        get_run_logger().info("%s: %s in %.1f s", stage, "reused" if cached else "done", cost.seconds)


def open_release(config: str, overrides: Mapping[str, str], artifacts: str, more: str = "") -> ReleaseRun:
    """Read the config of a release. Raises `BadInput`, which lists every mistake in it."""
    return ReleaseRun(read(Path(config), overrides, more), Artifacts(Path(artifacts).absolute()))
