"""The stages convert and mark as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from flows.run.release_run import Release
from flows.run.runners import carried_by
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.evidence import mark as marks
from taylor_ops.evidence.marking import Copy
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.machine.devices import device_named
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import CONVERT, MARK, inputs_of_convert, inputs_of_mark
from taylor_ops.storage.stage_cache import kept_under_key


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


@task(task_run_name="convert {release.label}")
def convert(release: Release, source: ResolvedSource, ranges: CapturedRanges, latency: LatencyRecord) -> ConvertedModel:
    """Write the model with stacked terms in place of the output weights of every MLP."""
    device = device_named(release.config.device)
    return release.perform(
        CONVERT,
        inputs_of_convert(release.config, source, ranges, latency),
        lambda folder, progress: conversion.convert(
            source.folder,
            ranges_file(release, ranges),
            latency.plan,
            release.config.conversion,
            folder,
            progress,
            kept_under_key(folder),
            carried_by(release.config.execution),
            device,
        ),
        device=device,
        less="lower `execution.workers`, or set `device: cpu`, with which the release is captured and calibrated anew",
    )


def ranges_file(release: Release, ranges: CapturedRanges) -> Path:
    return release.stages / "capture" / ranges.file
