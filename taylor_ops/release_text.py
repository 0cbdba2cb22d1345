"""A release in Markdown: what a job summary and the Prefect UI show of it."""

from __future__ import annotations

from taylor_ops.gates import gates, gates_in_markdown
from taylor_ops.presentation.wording import count, fixed, markdown_table
from taylor_ops.release_record import ReleaseRecord
from taylor_ops.storage.files import size


def release_in_markdown(record: ReleaseRecord) -> str:
    """What was released, its gates, and what its stages cost, with a final newline."""
    stages = [
        [name, fixed(stage.seconds, 1), count(round(stage.peak_rss_bytes / 1e6)), "reused" if stage.cached else "made"]
        for name, stage in record.stages.items()
    ]
    return "\n".join(
        [
            f"## {record.name} {record.version}\n",
            markdown_table(["release", f"{record.name} {record.version}"], facts(record)),
            gates_in_markdown(gates(record)),
            markdown_table(["stage", "seconds", "peak memory, MB", "result"], stages),
        ]
    )


def facts(record: ReleaseRecord) -> list[tuple[str, str]]:
    """From what, to where, when, and by which approval; each with its name."""
    published, approval = record.published, record.approval
    when = record.published_at.strftime("%Y-%m-%d %H:%M UTC") if record.published_at else "not recorded"
    place = f"{published.repo_id} {published.version} in {published.path}"
    if published.pull_request is not None:
        place = f"not yet: pull request {published.pull_request} of {published.repo_id} waits at {published.path}"
        when = f"left for review {when}"
    return [
        ("source", record.source.origin),
        ("published", place),
        ("when", when),
        ("approval", f"{approval.by}: {approval.comment}" if approval else "not asked for"),
        ("bundle", f"{size(record.bundle.bytes)} (original {size(record.bundle.original_bytes)})"),
    ]
