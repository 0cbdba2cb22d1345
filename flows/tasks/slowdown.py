"""The stages calibrate and transfer as Prefect tasks."""

from __future__ import annotations

from prefect import task

from flows.run.release_run import ReleaseRun
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.latency import calibrate as latencies
from taylor_ops.latency import transfer as transfers
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.machine.devices import device_named
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import CALIBRATE, TRANSFER, inputs_of_calibrate, inputs_of_transfer


@task(task_run_name="calibrate")
def calibrate(run: ReleaseRun, source: ResolvedSource, ranges: CapturedRanges) -> LatencyRecord:
    """Choose the terms of every neuron so that the measured slowdown meets the target."""
    config, device = run.config, run.device
    return run.perform(
        CALIBRATE,
        inputs_of_calibrate(config, source, ranges, device),
        lambda _folder, progress: latencies.calibrate(
            run.subject(source, ranges), config.latency, device, config.seed, progress, run.place.stages, run.bench
        ),
        device=device,
    )


@task(task_run_name="transfer")
def transfer(run: ReleaseRun, source: ResolvedSource, ranges: CapturedRanges, latency: LatencyRecord) -> LatencyRecord:
    """Time the chosen plan at other sizes and on other devices, and judge the devices against their targets."""
    config, device = run.config, run.device
    others = [device_named(target.device) for target in config.latency.devices]
    found = run.perform(
        TRANSFER,
        inputs_of_transfer(config, source, ranges, latency, [device, *others]),
        lambda _folder, progress: transfers.transfer(
            run.subject(source, ranges),
            latency,
            config.latency,
            device,
            config.seed,
            progress,
            run.place.stages,
            run.bench,
        ),
        device=next((used for used in (device, *others) if used.type == "cuda"), device),
    )
    run.bench.clear()
    transfers.require_targets_met(found)
    return latency.model_copy(update={"shapes": found.shapes, "devices": found.devices})
