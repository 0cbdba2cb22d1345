"""A release in Markdown, as job summaries and the Prefect UI show it."""

from __future__ import annotations

from taylor_ops.presentation.wording import count, fixed, markdown_table
from taylor_ops.releases.gates import facts, gates, gates_in_markdown
from taylor_ops.releases.headlines import headline_of
from taylor_ops.releases.record import ReleaseRecord


def release_in_markdown(record: ReleaseRecord) -> str:
    """What came out, every gate with its verdict, what was released and what it cost, with a final newline."""
    stages = [
        [name, fixed(stage.seconds, 1), count(round(stage.peak_rss_bytes / 1e6)), "reused" if stage.cached else "made"]
        for name, stage in record.stages.items()
    ]
    return "\n".join(
        [
            f"## {record.name} {record.version}\n",
            f"**{headline_of(record)}**\n",
            gates_in_markdown(gates(record)),
            markdown_table(["release", f"{record.name} {record.version}"], facts(record)),
            markdown_table(["stage", "seconds", "peak memory, MB", "result"], stages),
        ]
    )
