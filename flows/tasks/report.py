"""The report of a release as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from flows.run.release_run import ReleaseRun
from flows.tasks.announcements import show
from taylor_ops.bundle.findings import Findings
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.releases.index import published_at
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.releases.recording import Publication, release_record
from taylor_ops.releases.report import write_report


@task(task_run_name="report {run.label}")
def report(run: ReleaseRun, ranges: CapturedRanges, findings: Findings, publication: Publication) -> ReleaseRecord:
    """Write release.json and report.html, show them on the server, and log the place of the publication."""
    results, published = run.results, publication.published
    publication = publication.model_copy(update={"published_at": published_at(results.path)})
    record = release_record(run.config, ranges, findings, publication, run.costs)
    record.write(results.record)
    findings.exactness.write(results.measurements("exactness"))
    findings.latency.write(results.measurements("latency"))
    show(run, record, write_report(record, results.report))
    get_run_logger().info(
        "%s is %s: %s",
        run.label,
        "published" if published.pull_request is None else "left for review",
        run.artifacts.root / published.path if published.commit is None else published.path,
    )
    return record
