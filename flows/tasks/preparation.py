"""The stages resolve and capture as Prefect tasks, and the checks before any long work."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task

from flows.run.log_filter import secrets_kept
from flows.run.release_run import ReleaseRun
from flows.run.runners import require_installed
from flows.run.secrets import token_of
from taylor_ops.capture import capture as captured
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.latency.transfer import require_devices
from taylor_ops.leaks.sources import require_discreet_source
from taylor_ops.leaks.texts import this_machine
from taylor_ops.model.loading import load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.publishing import publish as publishing
from taylor_ops.publishing.hub_repository import patient_client
from taylor_ops.signing.configured import require_signer
from taylor_ops.source import resolve as sources
from taylor_ops.source.card_files import card_files
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.usable import notes_on
from taylor_ops.stages import CAPTURE, RESOLVE, inputs_of_capture, inputs_of_resolve
from taylor_ops.storage.stage_cache import kept_beside
from taylor_ops.tasks.prepare import require_tasks
from taylor_ops.texts.readable import require_readable


@task(task_run_name="resolve")
@secrets_kept()
def resolve(run: ReleaseRun) -> ResolvedSource:
    """Bring the source and all texts to this machine and check them."""
    require_equipped(run)

    def bring(folder: Path, progress: Progress) -> ResolvedSource:
        with patient_client() as patience:
            return sources.resolve(run.config.source, folder, progress, patience)

    resolved = run.perform(
        RESOLVE,
        inputs_of_resolve(run.config, run.place.stages),
        bring,
        still=lambda found: not found.missing(),
    )
    require_texts_and_target(run, resolved)
    return resolved


def require_equipped(run: ReleaseRun) -> None:
    """Raise `BadInput` if this machine lacks a package, a device, a key or a task that a later stage needs."""
    require_installed(run.config.execution)
    require_devices(run.config.latency)
    require_signer(run.config.publish.signing)
    require_tasks(run.config.exactness.tasks)
    # To read the key of the mark.
    _copy = run.copy


def require_texts_and_target(run: ReleaseRun, source: ResolvedSource) -> None:
    """Raise `BadInput` if a text cannot be read with the source, or nothing can be published to the target."""
    original, tokenizer = Original(source.folder), load_tokenizer(source.folder)
    for note in notes_on(tokenizer, original.config):
        logging.getLogger(__name__).warning("%s", note)
    require_readable(run.config, original, tokenizer)
    with patient_client() as patience:
        card_files(run.config, source.folder, patience)
    require_discreet_source(run.config, source.folder, this_machine(run.artifacts.root, source.folder))
    publishing.require_access(run.config.publish, token_of(run.config.publish), run.loaded.redirected)


@task(task_run_name="capture")
def capture(run: ReleaseRun, source: ResolvedSource) -> CapturedRanges:
    """Capture the range of every MLP pre-activation over the calibration text."""
    return run.perform(
        CAPTURE,
        inputs_of_capture(run.config, source, run.device),
        lambda folder, progress: captured.capture(
            source.folder,
            run.config.conversion.dtype,
            run.config.calibration,
            run.device,
            folder,
            progress,
            kept_beside(folder),
        ),
        device=run.device,
    )
