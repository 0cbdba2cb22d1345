"""Terminal tables of the releases in the artifacts folder: the list, one in detail, two side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from taylor_ops.errors import BadInput
from taylor_ops.presentation.wording import fixed, percent
from taylor_ops.releases.comparison import Difference
from taylor_ops.releases.gates import Gate, facts
from taylor_ops.releases.index import Run
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.files import size


def overview(run: Run) -> dict[str, str | None]:
    """One line of the list, as JSON prints it. An unknown value is None, and `problem` says why."""
    line: dict[str, str | None] = {
        "name": run.name,
        "version": run.version,
        "published": "yes" if run.published else "no",
    }
    try:
        record = run.record()
    except BadInput as error:
        return (
            line
            | dict.fromkeys(("when", "source", "slowdown", "withheld", "bundle", "approval"))
            | {"problem": error.cause}
        )
    fact, coverage = dict(facts(record)), record.coverage
    return line | {
        "published": "yes" if record.published.pull_request is None else "in review",
        "when": fact["when"],
        "source": record.source.origin,
        "slowdown": fixed(record.slowdown.achieved, 2),
        "withheld": percent(coverage.neurons_protected / coverage.neurons_total),
        "bundle": size(record.bundle.bytes),
        "approval": fact["approval"],
        "problem": None,
    }


def list_table(lines: Sequence[dict[str, str | None]]) -> Table | Text:
    """The list as a table, or a line that says that nothing was released."""
    if not lines:
        return Text("nothing was released here yet")
    keys = ["name", "version", "when", "source", "slowdown", "withheld", "bundle", "approval"]
    # Scripts rely on the key, people read the heading.
    table = _table("Releases", ["protected" if key == "withheld" else key for key in keys])
    for line in lines:
        cells = [line[key] or "" for key in keys]
        if line["problem"]:
            cells[2] = line["problem"] if line["published"] == "yes" else "not finished"
        table.add_row(*map(Text, cells))
    return table


def details(record: ReleaseRecord, found: Sequence[Gate]) -> Group:
    """Facts and gates of one release."""
    about = _table(f"{record.name} {record.version}", ["", ""])
    about.show_header = False
    for name, value in facts(record):
        about.add_row(Text(name), Text(value))
    table = _table("Gates", ["gate", "required", "found"])
    for gate in found:
        table.add_row(Text(gate.gate), Text(gate.required), Text(gate.found))
    return Group(about, Text(), table)


def difference_table(name: str, first: str, second: str, differences: Sequence[Difference]) -> Table:
    """Two releases side by side. Lines in which they differ are bold and marked."""
    table = _table(name, ["", first, second, "differs"])
    for line in differences:
        style = "" if line.same else "bold"
        cells = [line.what, line.first, line.second, "" if line.same else "yes"]
        table.add_row(*[Text(cell, style=style) for cell in cells])
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    # As Text, because names come from outside and rich takes square brackets in a string for markup.
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table
