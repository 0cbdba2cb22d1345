"""The release flow: one model and its config, from the source to a verified publication."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.parameters import (
    Expected,
    PublishTo,
    Slowdown,
    Version,
    as_settings,
    described_by,
    release_form,
    require_expected,
)
from flows.run.log_filter import secrets_kept, without_tracebacks
from flows.run.release_run import open_release
from flows.run.tags import tag_this_run
from flows.tasks.announcements import preview, rejection_told
from flows.tasks.approval import approve, require_suspendable
from flows.tasks.conversion import convert, mark
from flows.tasks.preparation import capture, resolve
from flows.tasks.proof import audit, tasks, validate
from flows.tasks.publication import assemble, publish, refuse_leaks, verify
from flows.tasks.report import report
from flows.tasks.slowdown import calibrate, transfer
from taylor_ops.bundle.findings import Findings
from taylor_ops.errors import BadInput
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.releases.recording import Publication


def _run_name() -> str:
    """Name and version, or the name of the file if the config cannot be read: the run itself reports its errors."""
    given = flow_run.parameters
    settings = as_settings(given.get("version"), given.get("target_slowdown"), given.get("publish_to"))
    try:
        label = open_release(given["config"], settings, ".", given.get("more") or "").label
    except BadInput:
        return str(given["config"]).rpartition("/")[2].removesuffix(".yaml")
    return f"{label}, dry run" if given.get("dry_run") else label


@flow(name="release", flow_run_name=_run_name)
@described_by(release_form)
def release(
    config: str,
    version: Version = "",
    target_slowdown: Slowdown = None,
    publish_to: PublishTo = "",
    comment: str = "",
    dry_run: bool = False,
    more: str = "",
    artifacts: str = "artifacts",
    expected: Expected = "",
) -> ReleaseRecord | None:
    """It takes 9 parameters because each is a field of the run form, whose text takes the place of this one."""
    without_tracebacks()
    run = open_release(config, as_settings(version, target_slowdown, publish_to), artifacts, more)
    require_expected(run.loaded, expected)
    require_suspendable(run)
    tag_this_run(run.config)
    if dry_run:
        preview(run)
        return None
    with run.pulse, secrets_kept(), run.place.lock(), rejection_told(run):
        source = resolve(run)
        ranges = capture(run, source)
        chosen = calibrate(run, source, ranges)
        latency = transfer(run, source, ranges, chosen)
        converted = mark(run, source, ranges, convert(run, source, ranges, latency))
        exactness = validate(run, source, ranges, converted)
        scores = tasks(run, source)
        attacks = audit(run, source, converted, exactness)
        findings = Findings(
            source=source, converted=converted, latency=latency, exactness=exactness, tasks=scores, audit=attacks
        )
        findings = findings.model_copy(update={"approval": approve(run, findings, comment)})
        bundle = assemble(run, findings)
        leaks = refuse_leaks(run, source, converted, bundle, findings.approval)
        published = publish(run, bundle)
        verified = verify(run, bundle, published)
        publication = Publication(bundle=bundle, leaks=leaks, published=published, verified=verified)
        return report(run, ranges, findings, publication)
