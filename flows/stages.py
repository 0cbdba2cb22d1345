"""The stages of a release as Prefect tasks: what each reads, what of the config decides it, and what it calls."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from flows import lineage
from flows.mark import copy_of, model_of
from flows.results import failed_verification_told, publication_told, show
from flows.run.progress import StageProgress
from flows.run.release_run import Release
from flows.run.runners import carried_by, require_installed
from flows.run.secrets import secrets_here, token_of
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.audit.audit import audit as attack
from taylor_ops.audit.gate import require_allowed
from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle import assemble as bundles
from taylor_ops.bundle import manifest
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.record import Approval, BundleRecord
from taylor_ops.capture import capture as captured
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.release import public_texts
from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion.integrity import require_as_planned
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.evidence.marking import MarkedModel
from taylor_ops.exactness import gate
from taylor_ops.exactness import validate as exact
from taylor_ops.exactness.layers import require_within_bounds
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.latency.transfer import require_devices
from taylor_ops.leaks.record import NoLeak
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.texts import this_machine
from taylor_ops.machine.devices import device_named
from taylor_ops.model.loading import load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.publishing import publish as publishing
from taylor_ops.publishing.hub_fetch import Reference, fetch
from taylor_ops.publishing.record import Published
from taylor_ops.releases.index import note_published, published_at
from taylor_ops.releases.record import ReleaseRecord, release_record
from taylor_ops.releases.report import write_report
from taylor_ops.signing.signers import Signer, require_signer, signer_of
from taylor_ops.source import resolve as sources
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import (
    ASSEMBLE,
    AUDIT,
    CAPTURE,
    CONVERT,
    LEAKS,
    RESOLVE,
    VALIDATE,
    VERIFY,
    inputs_of_assemble,
    inputs_of_audit,
    inputs_of_capture,
    inputs_of_convert,
    inputs_of_leaks,
    inputs_of_resolve,
    inputs_of_validate,
    inputs_of_verify,
)
from taylor_ops.storage.stage_cache import kept_beside, kept_under_key
from taylor_ops.texts.readable import require_readable
from taylor_ops.verification import verify as verification
from taylor_ops.verification.record import Verified


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


@task(task_run_name="convert {release.label}")
def convert(release: Release, source: ResolvedSource, ranges: CapturedRanges, latency: LatencyRecord) -> ConvertedModel:
    """Write the model with stacked terms in place of the output weights of every MLP."""
    device = device_named(release.config.device)
    return release.perform(
        CONVERT,
        inputs_of_convert(release.config, source, ranges, latency),
        lambda folder, progress: conversion.convert(
            source.folder,
            _ranges_file(release, ranges),
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


@task(task_run_name="validate {release.label}")
def validate(
    release: Release, source: ResolvedSource, ranges: CapturedRanges, converted: ConvertedModel
) -> ExactnessRecord:
    """Check what was stored, compare tokens with the original on held-out prompts, and judge; three gates."""
    config, device = release.config, device_named(release.config.device)
    bundle, copy = model_of(release), copy_of(release)

    def compare(folder: Path, progress: Progress) -> ExactnessRecord:
        unmarked = release.stages / "convert"
        require_as_planned(source.folder, _ranges_file(release, ranges), converted.plan, config.conversion, unmarked)
        if copy is not None:
            MarkedModel(unmarked, copy).require_in(bundle)
        return exact.validate(
            source.folder,
            bundle,
            _ranges_file(release, ranges),
            config.conversion,
            config.exactness,
            device,
            progress,
            kept_under_key(folder) / "offloaded",
        )

    record = release.perform(
        VALIDATE,
        inputs_of_validate(config, source, ranges, converted, copy, device),
        compare,
        device=device,
    )
    gate.require_exact(record)
    require_within_bounds(record.layers, converted.layers)
    return record


@task(task_run_name="audit {release.label}")
def audit(release: Release, source: ResolvedSource, converted: ConvertedModel) -> AuditRecord:
    """Attack the converted model, record what the attacks recover, and judge where the config asks for it."""
    config, device = release.config, device_named(release.config.device)
    copy = copy_of(release)

    def run(folder: Path, progress: Progress) -> AuditRecord:
        conditions = Conditions(
            config.exactness.prompts,
            config.latency,
            device,
            config.seed,
            kept_under_key(folder) / "rebuilt",
            config.exactness.running_text,
        )
        return attack(source.folder, model_of(release), config.audit, progress, conditions)

    record = release.perform(
        AUDIT,
        inputs_of_audit(config, source, converted, copy, device),
        run,
        device=device,
    )
    require_allowed(record, config.audit)
    return record


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


@task(task_run_name="report {release.label}")
def report(
    release: Release,
    source: ResolvedSource,
    ranges: CapturedRanges,
    latency: LatencyRecord,
    converted: ConvertedModel,
    exactness: ExactnessRecord,
    attacks: AuditRecord,
    approval: Approval | None,
    bundle: BundleRecord,
    leaks: NoLeak,
    published: Published,
    verified: Verified,
) -> ReleaseRecord:
    """Write release.json and report.html, show them on the server, and log where everything is."""
    record = release_record(
        release.config,
        source,
        ranges,
        latency,
        converted,
        exactness,
        attacks,
        bundle,
        published,
        verified,
        release.costs,
        approval,
        published_at(release.folder),
        leaks,
    )
    record.write(release.folder / "release.json")
    exactness.write(release.folder / "measurements" / "exactness.json")
    latency.write(release.folder / "measurements" / "latency.json")
    show(release, record, write_report(record, release.folder / "report.html"))
    get_run_logger().info(
        "%s is %s: %s",
        release.label,
        "published" if published.pull_request is None else "left for review",
        release.artifacts / published.path if published.commit is None else published.path,
    )
    return record


def _signer(release: Release) -> Signer | None:
    """Who signs; `BadInput` where a key should and there is none."""
    signing = release.config.publish.signing
    return None if signing is None else signer_of(signing)


def _ranges_file(release: Release, ranges: CapturedRanges) -> Path:
    return release.stages / "capture" / ranges.file
