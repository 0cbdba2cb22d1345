"""The stage `mark`: the copy of the recipient that a config names, where it names one."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from flows.run.release_run import Release
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.evidence import mark as marks
from taylor_ops.evidence.marking import Copy
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import MARK, inputs_of_mark


@task(task_run_name="mark {release.label}")
def mark(release: Release, source: ResolvedSource, ranges: CapturedRanges, converted: ConvertedModel) -> ConvertedModel:
    """Mark the converted model as the copy of the recipient that the config names; without one it stays as it is."""
    copy, margin = copy_of(release), release.config.conversion.range_margin
    if copy is None:
        return converted
    return release.perform(
        MARK,
        inputs_of_mark(release.config, ranges, converted, copy),
        lambda folder, progress: marks.mark(
            source.folder,
            release.stages / "capture" / ranges.file,
            margin,
            converted,
            release.stages / "convert",
            copy,
            folder,
            progress,
        ),
    )


def copy_of(release: Release) -> Copy | None:
    """The copy that the config asks for, None where it names no recipient; `BadInput` where its key cannot be read."""
    marking = release.config.evidence
    return None if marking is None else marks.copy_under(marking, release.config.version)


def model_of(release: Release) -> Path:
    """The folder of the model that is released: converted, and marked where the config names a recipient."""
    return release.stages / ("convert" if release.config.evidence is None else "mark")
