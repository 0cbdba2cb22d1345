"""The report of a release as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from flows.run.release_run import Release
from flows.tasks.announcements import show
from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle.record import Approval, BundleRecord
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.leaks.record import NoLeak
from taylor_ops.publishing.record import Published
from taylor_ops.releases.index import published_at
from taylor_ops.releases.record import ReleaseRecord, release_record
from taylor_ops.releases.report import write_report
from taylor_ops.source.record import ResolvedSource
from taylor_ops.verification.record import Verified


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
