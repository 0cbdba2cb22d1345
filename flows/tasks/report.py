"""The report of a release as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from flows.run.release_run import ReleaseRun
from flows.server.shown import OUTCOME
from flows.tasks.announcements import show
from taylor_ops.bundle.findings import Findings
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.releases.headlines import outcome
from taylor_ops.releases.index import published_at
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.releases.recording import Publication, release_record
from taylor_ops.releases.report import write_report


@task(task_run_name="report")
def report(run: ReleaseRun, ranges: CapturedRanges, findings: Findings, publication: Publication) -> ReleaseRecord:
    """Write release.json and report.html, show them on the server, and log the place of the publication."""
    results, published = run.results, publication.published
    publication = publication.model_copy(update={"published_at": published_at(results.path)})
    record = release_record(run.config, ranges, findings, publication, run.costs)
    record.write(results.record)
    findings.exactness.write(results.measurements("exactness"))
    findings.latency.write(results.measurements("latency"))
    show(run, record, write_report(record, results.report))
    place = str(run.artifacts.root / published.path) if published.commit is None else published.path
    lines = outcome(record, place, str(results.report))
    listed = "".join(f"- {line}\n" for line in lines)
    create_markdown_artifact(listed, key=run.key(OUTCOME), description=f"outcome of {run.label}")
    get_run_logger().info("\n".join(lines))
    return record
