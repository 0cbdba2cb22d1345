"""A release in Markdown, as job summaries and the Prefect UI show it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taylor_ops.presentation.wording import count, fixed, markdown_table
from taylor_ops.releases.gates import facts, gates, gates_in_markdown
from taylor_ops.releases.headlines import headline_of
from taylor_ops.releases.record import ReleaseRecord

if TYPE_CHECKING:
    from taylor_ops.releases.report import Plot

_PLOTS = "\n## Plots\n"


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


def report_in_markdown(record: ReleaseRecord, places: Mapping[str, str], plots: Sequence[Plot]) -> str:
    """The same with places that can be copied, and with the plots inside: no picture needs another file.

    Args:
        record: The release.
        places: Paths or addresses, by what they are the places of.
        plots: Plots of the report.
    """
    copied = "".join(f"\n{what}:\n\n```\n{place}\n```\n" for what, place in places.items())
    drawn = "".join(
        f"\n### {plot.title}\n\n![{plot.title}](data:image/svg+xml;base64,"
        f"{base64.b64encode(plot.svg.encode()).decode()})\n\n{plot.caption}\n"
        for plot in plots
    )
    return f"{release_in_markdown(record)}{copied}{_PLOTS}{drawn}"


def without_pictures(report: str) -> str:
    """A report without its plots, for places that show no picture from within a text."""
    return report.partition(_PLOTS)[0].rstrip()


def card_in_markdown(card: str) -> str:
    """The text of a card, without its metadata, its pictures, which are other files, and its folds, which are HTML."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).lstrip()
    text = re.sub(r"^!\[.*?\]\([\w.]+\)\n\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"<details>\n<summary>(.*?)</summary>\n", r"**\1**\n", text)
    return text.replace("\n</details>\n", "")
