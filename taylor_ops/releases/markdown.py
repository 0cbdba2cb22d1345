"""A release in Markdown, as job summaries and the Prefect UI show it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taylor_ops.presentation.wording import count, fixed, markdown_table
from taylor_ops.releases.gates import facts, gates, gates_in_markdown, gates_listed
from taylor_ops.releases.headlines import headline_of
from taylor_ops.releases.record import ReleaseRecord

if TYPE_CHECKING:
    from taylor_ops.releases.report import Plot

_PLOTS = "\n## Plots\n"


def release_in_markdown(record: ReleaseRecord) -> str:
    """What came out, every gate with its verdict, what was released and what it cost, with a final newline."""
    return _release(record, gates_in_markdown(gates(record)))


def _release(record: ReleaseRecord, shown_gates: str) -> str:
    stages = [
        [name, fixed(stage.seconds, 1), count(round(stage.peak_rss_bytes / 1e6)), "reused" if stage.cached else "made"]
        for name, stage in record.stages.items()
    ]
    return "\n".join(
        [
            f"## {record.name} {record.version}\n",
            f"**{headline_of(record)}**\n",
            shown_gates,
            markdown_table(["release", f"{record.name} {record.version}"], facts(record)),
            markdown_table(["stage", "seconds", "peak memory, MB", "result"], stages),
        ]
    )


def report_in_markdown(record: ReleaseRecord, places: Mapping[str, str], plots: Sequence[Plot]) -> str:
    """The same for the Prefect UI: gates as a list, places that can be copied, and the plots inside.

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
    return f"{_release(record, gates_listed(gates(record)))}{copied}{_PLOTS}{drawn}"


def without_pictures(report: str) -> str:
    """A report without its plots, for places that show no picture from within a text."""
    return report.partition(_PLOTS)[0].rstrip()


def card_in_markdown(card: str) -> str:
    """The text of a card for the Prefect UI, without metadata, pictures, which are other files, and folds.

    The UI breaks no line in a table and every line of a paragraph. So the box becomes a list, and a paragraph one line.
    """
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).lstrip()
    text = re.sub(r"^!\[.*?\]\([\w.]+\)\n\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"<details>\n<summary>(.*?)</summary>\n", r"**\1**\n", text).replace("\n</details>\n", "")
    text = re.sub(r"^\| (\*\*.+?\*\*) \| (.*) \|$", r"- \1: \2", text, flags=re.MULTILINE)
    text = text.replace("\n| :--- | :--- |\n", "\n")
    prose_and_code = re.split(r"(^`{3,}.*?^`{3,}$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _unwrapped(part) for part in prose_and_code)


def _unwrapped(text: str) -> str:
    """Every paragraph and every item of a list in one line."""
    return re.sub(r"(?<=[^\n|])\n {0,2}(?=[^\n|# -])", " ", text)
