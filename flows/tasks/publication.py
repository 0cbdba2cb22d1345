"""The stages assemble, leaks, publish and verify as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from flows.run.log_filter import secrets_kept
from flows.run.release_run import ReleaseRun
from flows.run.secrets import secrets_here, token_of
from flows.tasks import lineage
from flows.tasks.announcements import failed_verification_told, publication_told
from taylor_ops.bundle import assemble as bundles
from taylor_ops.bundle import manifest
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.bundle.record import Approval, BundleRecord
from taylor_ops.config.release import public_texts
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.errors import told_as
from taylor_ops.leaks.record import NoLeak
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.texts import this_machine
from taylor_ops.progress import Progress
from taylor_ops.publishing import publish as publishing
from taylor_ops.publishing.hub_fetch import Reference, fetch
from taylor_ops.publishing.record import Published
from taylor_ops.releases.index import note_published
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import (
    ASSEMBLE,
    LEAKS,
    VERIFY,
    inputs_of_assemble,
    inputs_of_leaks,
    inputs_of_verify,
)
from taylor_ops.storage.files import sha256_of
from taylor_ops.storage.stage_cache import kept_beside
from taylor_ops.verification import verify as verification
from taylor_ops.verification.record import Verified


@task(task_run_name="assemble")
def assemble(run: ReleaseRun, findings: Findings) -> BundleRecord:
    """Put model, card and manifest together in the run's folder."""
    config, document, signer = run.config, manifest.stated(run.loaded.document), run.signer
    overridden = bundles.stated_overrides(run.loaded.overridden)
    return run.perform(
        ASSEMBLE,
        inputs_of_assemble(config, findings, document, None if signer is None else str(signer), overridden),
        lambda folder, progress: bundles.assemble(
            run.model_folder, config, document, findings, folder, progress, overridden
        ),
        folder=run.results.bundle,
    )


@task(task_run_name="refuse leaks")
def refuse_leaks(
    run: ReleaseRun,
    source: ResolvedSource,
    converted: ConvertedModel,
    bundle: BundleRecord,
    approval: Approval | None,
) -> NoLeak:
    """Search the files to publish for protected weights, secrets and traces of this machine."""
    statements = [approval.by, approval.comment] if approval else []
    copy, secrets = run.copy, secrets_here(run.config.publish)
    if copy is not None:
        secrets = (*secrets, copy.key.text)
    machine = this_machine(run.artifacts.root, source.folder, secrets=secrets)
    public = public_texts(run.config) + statements
    return run.perform(
        LEAKS,
        inputs_of_leaks(source, converted, bundle, machine, public),
        lambda _folder, progress: require_no_leak(
            run.results.bundle,
            bundle.files,
            source.folder,
            source.sha256,
            converted.layers,
            public,
            machine,
            progress,
        ),
    )


@task(task_run_name="publish")
@secrets_kept()
def publish(run: ReleaseRun, bundle: BundleRecord) -> Published:
    """Publish the whole bundle or nothing of it."""
    with run.measured("publish") as reused, run.shown("publish") as progress:
        published = publishing.publish(
            run.config.publish,
            run.results.bundle,
            bundle.files,
            run.config.version,
            run.artifacts.root,
            token_of(run.config.publish),
            progress,
        )
        if published.unchanged:
            reused.append("publish")
    note_published(run.results.path, published)
    publication_told(run, published)
    if published.commit is not None and published.pull_request is None:
        lineage.note(run.config, published)
    return published


@task(task_run_name="verify")
@secrets_kept()
def verify(run: ReleaseRun, bundle: BundleRecord, published: Published) -> Verified:
    """Verify the publication in its place. From the Hub, verify the files that a reader gets."""

    def check(folder: Path, progress: Progress) -> Verified:
        if published.commit is None:
            return verification.verify(run.artifacts.root / published.path, run.signer, progress=progress, own=True)
        place, fetched = Reference(published.repo_id, published.commit), kept_beside(folder) / "fetched"
        with told_as(fetched, f"{place.repo_id}@{place.revision[:12]}"):
            fetch(place, fetched, token_of(run.config.publish))
            # The manifest has the hash of every other file, with which verification compares before it runs any code.
            stated = fetched / MANIFEST
            own = stated.is_file() and sha256_of(stated) == bundle.files[MANIFEST]
            return verification.verify(fetched, run.signer, progress=progress, own=own)

    with failed_verification_told(run, published):
        return run.perform(
            VERIFY,
            inputs_of_verify(bundle, published),
            check,
        )
