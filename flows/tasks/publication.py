"""The stages assemble, leaks, publish and verify as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from flows.run.progress import StageProgress
from flows.run.release_run import Release
from flows.run.secrets import secrets_here, token_of
from flows.tasks import lineage
from flows.tasks.announcements import failed_verification_told, publication_told
from flows.tasks.conversion import copy_of, model_of
from taylor_ops.bundle import assemble as bundles
from taylor_ops.bundle import manifest
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.record import Approval, BundleRecord
from taylor_ops.config.release import public_texts
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.leaks.record import NoLeak
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.texts import this_machine
from taylor_ops.progress import Progress
from taylor_ops.publishing import publish as publishing
from taylor_ops.publishing.hub_fetch import Reference, fetch
from taylor_ops.publishing.record import Published
from taylor_ops.releases.index import note_published
from taylor_ops.signing.signers import Signer, signer_of
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import (
    ASSEMBLE,
    LEAKS,
    VERIFY,
    inputs_of_assemble,
    inputs_of_leaks,
    inputs_of_verify,
)
from taylor_ops.storage.stage_cache import kept_beside
from taylor_ops.verification import verify as verification
from taylor_ops.verification.record import Verified


@task(task_run_name="assemble {release.label}")
def assemble(release: Release, findings: Findings, approval: Approval | None) -> BundleRecord:
    """Put model, card and manifest together in the run's folder."""
    findings = findings.model_copy(update={"approval": approval})
    config, document, signer = release.config, manifest.stated(release.loaded.document), _signer(release)
    return release.perform(
        ASSEMBLE,
        inputs_of_assemble(config, findings, document, None if signer is None else str(signer)),
        lambda folder, _progress: bundles.assemble(model_of(release), config, document, findings, folder),
        folder=release.folder / "bundle",
    )


@task(task_run_name="refuse leaks {release.label}")
def refuse_leaks(
    release: Release,
    source: ResolvedSource,
    converted: ConvertedModel,
    bundle: BundleRecord,
    approval: Approval | None,
) -> NoLeak:
    """Look for withheld weights, and for what tells of this machine, in the files that are to go up."""
    said = [approval.by, approval.comment] if approval else []
    copy, secrets = copy_of(release), secrets_here(release.config.publish)
    if copy is not None:
        secrets = (*secrets, copy.key.text)
    machine = this_machine(release.artifacts, source.folder, secrets=secrets)
    public = public_texts(release.config) + said
    return release.perform(
        LEAKS,
        inputs_of_leaks(source, converted, bundle, machine, public),
        lambda _folder, progress: require_no_leak(
            release.folder / bundle.folder,
            bundle.files,
            source.folder,
            source.sha256,
            converted.layers,
            public,
            machine,
            progress,
        ),
    )


@task(task_run_name="publish {release.label}")
def publish(release: Release, bundle: BundleRecord) -> Published:
    """Publish the bundle, whole or not at all."""
    progress = StageProgress("publish", release.label, release.key("publish"))
    with release.measured("publish") as reused:
        published = publishing.publish(
            release.config.publish,
            release.folder / bundle.folder,
            bundle.files,
            release.config.version,
            release.artifacts,
            token_of(release.config.publish),
            progress,
        )
        if published.unchanged:
            reused.append("publish")
    progress.finish()
    note_published(release.folder, published)
    publication_told(release, published)
    if published.commit is not None and published.pull_request is None:
        lineage.note(release.config, published)
    return published


@task(task_run_name="verify {release.label}")
def verify(release: Release, bundle: BundleRecord, published: Published) -> Verified:
    """Verify what was published, where it was published; of a Hub, what a reader is given there."""
    folder = release.stages / "verify"

    def check(_folder: Path, _progress: Progress) -> Verified:
        if published.commit is None:
            return verification.verify(release.artifacts / published.path, _signer(release))
        place, fetched = Reference(published.repo_id, published.commit), kept_beside(folder) / "fetched"
        fetch(place, fetched, token_of(release.config.publish))
        return verification.verify(fetched, _signer(release))

    with failed_verification_told(release, published):
        return release.perform(
            VERIFY,
            inputs_of_verify(bundle, published),
            check,
        )


def _signer(release: Release) -> Signer | None:
    """Who signs; `BadInput` where a key should and there is none."""
    signing = release.config.publish.signing
    return None if signing is None else signer_of(signing)
