"""What a person sees of a release on the server: artifacts of a finished release, and events for automations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.run.release_run import ReleaseRun
from flows.server.shown import REPORT
from taylor_ops.bundle.manifest import CARD
from taylor_ops.config_file.changed import release_preview
from taylor_ops.errors import GateRejected
from taylor_ops.presentation.wording import plain
from taylor_ops.publishing.record import Published, does_not_verify
from taylor_ops.releases.markdown import card_in_markdown, report_in_markdown
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.releases.report import Plot

PUBLISHED, REJECTED, UNVERIFIED = "release.published", "release.rejected", "release.unverified"


def show(run: ReleaseRun, record: ReleaseRecord, plots: Sequence[Plot]) -> None:
    """Create two artifacts of a finished release: its report with the plots inside, and the text of its card."""
    published, results = record.published.path, run.results
    place = published if "://" in published else str(run.artifacts.root / published)
    create_markdown_artifact(
        report_in_markdown(record, {"bundle": place, "report": str(results.report)}, plots),
        key=run.key(REPORT),
        description=f"report of {run.label}",
    )
    card = (results.bundle / CARD).read_text(encoding="utf-8")
    create_markdown_artifact(card_in_markdown(card), key=run.key("card"), description=f"card of {run.label}")


def preview(run: ReleaseRun) -> None:
    """Say what a dry run would release, in the log and in an artifact."""
    text = release_preview([run.loaded], "Without `dry_run`, this run")
    get_run_logger().info("dry run of %s, which releases nothing. %s", run.label, text)
    create_markdown_artifact(text, key=run.key("dry-run"), description=f"what a run would release of {run.label}")


def publication_told(run: ReleaseRun, published: Published) -> None:
    """Emit `release.published` if readers can see the release from now on, even if the run fails later."""
    if published.pull_request is None:
        _tell(run, PUBLISHED, {"published": published.plain()})


@contextmanager
def failed_verification_told(run: ReleaseRun, published: Published) -> Iterator[None]:
    """Emit `release.unverified` if the published files are not as they were sent. It is too late for a rejection."""
    try:
        yield
    except GateRejected as error:
        found = does_not_verify(run.label, published, error.cause)
        _tell(
            run,
            UNVERIFIED,
            {"cause": found.cause, "remedy": found.remedy, "published": published.plain()},
        )
        raise found from error


@contextmanager
def rejection_told(run: ReleaseRun) -> Iterator[None]:
    """Emit `release.rejected`, and show why, if a gate or a person rejects the release."""
    try:
        yield
    except GateRejected as error:
        _tell(run, REJECTED, {"cause": error.cause, "remedy": error.remedy})
        told = f"## {run.label}\n\n**failed**: {plain(error.cause)}\n\n**what to do**: {plain(error.remedy)}\n"
        create_markdown_artifact(told, key=run.key(REPORT), description=f"report of {run.label}")
        raise


def _tell(run: ReleaseRun, event: str, payload: dict[str, object]) -> None:
    config = run.config
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"taylor-release.{config.name}.{config.version}",
            "prefect.resource.name": run.label,
            "taylor-release.name": config.name,
            "taylor-release.version": config.version,
        },
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}],
        payload=payload,
    )
