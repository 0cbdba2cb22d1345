"""The stages convert and mark as Prefect tasks."""

from __future__ import annotations

from prefect import task

from flows.run.release_run import ReleaseRun
from flows.run.runners import carried_by
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.evidence import mark as marks
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import CONVERT, MARK, inputs_of_convert, inputs_of_mark
from taylor_ops.storage.stage_cache import kept_under_key


@task(task_run_name="convert")
def convert(run: ReleaseRun, source: ResolvedSource, ranges: CapturedRanges, latency: LatencyRecord) -> ConvertedModel:
    """Write the model with stacked terms in place of the output weights of every MLP."""
    device = run.device
    return run.perform(
        CONVERT,
        inputs_of_convert(run.config, source, ranges, latency),
        lambda folder, progress: conversion.convert(
            run.subject(source, ranges),
            latency.plan,
            folder,
            progress,
            kept_under_key(folder),
            carried_by(run.config.execution),
            device,
        ),
        device=device,
        less="lower `execution.workers`, or set `device: cpu`, which captures and calibrates the release anew",
    )


@task(task_run_name="mark")
def mark(run: ReleaseRun, source: ResolvedSource, ranges: CapturedRanges, converted: ConvertedModel) -> ConvertedModel:
    """Mark the converted model as the copy of the recipient in the config. Without a recipient it stays unmarked."""
    copy, margin = run.copy, run.config.conversion.range_margin
    if copy is None:
        return converted
    return run.perform(
        MARK,
        inputs_of_mark(run.config, ranges, converted, copy),
        lambda folder, progress: marks.mark(
            source.folder,
            run.ranges_file(ranges),
            margin,
            converted,
            run.place.stage(CONVERT.name),
            copy,
            folder,
            progress,
        ),
    )
