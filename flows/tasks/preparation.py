"""The stages resolve and capture as Prefect tasks, and what is checked before any long work."""

from __future__ import annotations

from prefect import task

from flows.run.release_run import Release
from flows.run.runners import require_installed
from flows.run.secrets import token_of
from flows.tasks.conversion import copy_of
from taylor_ops.capture import capture as captured
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.latency.transfer import require_devices
from taylor_ops.machine.devices import device_named
from taylor_ops.model.loading import load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.publishing import publish as publishing
from taylor_ops.signing.signers import require_signer
from taylor_ops.source import resolve as sources
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import CAPTURE, RESOLVE, inputs_of_capture, inputs_of_resolve
from taylor_ops.storage.stage_cache import kept_beside
from taylor_ops.texts.readable import require_readable


@task(task_run_name="resolve {release.label}")
def resolve(release: Release) -> ResolvedSource:
    """Bring the source and all texts to this machine and check them."""
    config, source = release.config, release.config.source
    require_installed(config.execution)
    require_devices(config.latency)
    require_signer(config.publish.signing)
    copy_of(release)
    resolved = release.perform(
        RESOLVE,
        inputs_of_resolve(config, release.stages),
        lambda folder, progress: sources.resolve(source, folder, progress),
        still=lambda found: not found.missing(),
    )
    require_readable(config, Original(resolved.folder), load_tokenizer(resolved.folder))
    publishing.require_access(config.publish, token_of(config.publish))
    return resolved


@task(task_run_name="capture {release.label}")
def capture(release: Release, source: ResolvedSource) -> CapturedRanges:
    """Capture the range of every MLP pre-activation over the calibration text."""
    config, device = release.config, device_named(release.config.device)
    return release.perform(
        CAPTURE,
        inputs_of_capture(config, source, device),
        lambda folder, progress: captured.capture(
            source.folder,
            config.conversion.dtype,
            config.calibration,
            device,
            folder,
            progress,
            kept_beside(folder),
        ),
        device=device,
    )
