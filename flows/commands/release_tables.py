"""Terminal tables of the releases in the artifacts folder: the list, one in detail, two side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from taylor_ops.presentation.wording import count
from taylor_ops.releases.comparison import Difference
from taylor_ops.releases.gates import Gate, facts
from taylor_ops.releases.overview import Overview
from taylor_ops.releases.record import ReleaseRecord

# Those that always stand there, then the others, the most telling ones first. Scripts rely on the key, people read the
# heading.
_ALWAYS = ("name", "version")
_COLUMNS = {"when": "when", "slowdown": "slowdown", "withheld": "protected", "bundle": "bundle"}
_WIDE_COLUMNS = {"source": "source", "approval": "approval"}
# What rich draws beside the text of a cell: a space on both sides, and the border.
_FRAME = 3


def list_table(lines: Sequence[Overview], width: int) -> Group | Table | Text:
    """The list as a table at most `width` wide, or a line that says that nothing was released.

    Names and versions are never shortened. Columns that do not fit beside them are left out, the least telling first.
    """
    if not lines:
        return Text("nothing was released here yet")
    columns = {key: [_cell(line, key) for line in lines] for key in (*_ALWAYS, *_COLUMNS, *_WIDE_COLUMNS)}
    headings = {key: key for key in _ALWAYS} | _COLUMNS | _WIDE_COLUMNS
    shown, left = [], width - 1
    for key, cells in columns.items():
        left -= _FRAME + max(map(cell_len, [headings[key], *cells]))
        if left < 0 and key not in _ALWAYS:
            break
        shown.append(key)
    table = _table("Releases", [headings[key] for key in shown])
    for column in table.columns:
        column.overflow = "fold"
    for row in zip(*(columns[key] for key in shown), strict=True):
        table.add_row(*map(Text, row))
    rest = ", ".join(headings[key] for key in columns if key not in shown)
    return Group(table, Text(f"a wider terminal also shows {rest}; so does `--json`")) if rest else table


def _cell(line: Overview, key: str) -> str:
    if key == "when" and line.problem:
        return "not readable" if line.published == "yes" else "not finished"
    value: str | None = getattr(line, key)
    return value or ""


def problems(lines: Sequence[Overview]) -> list[str]:
    """What is wrong with releases that were published and whose record cannot be read."""
    return [line.problem for line in lines if line.problem and line.published == "yes"]


def details(record: ReleaseRecord, found: Sequence[Gate]) -> Group:
    """Facts and gates of one release."""
    about = _table(f"{record.name} {record.version}", ["", ""])
    about.show_header = False
    for name, value in facts(record):
        about.add_row(Text(name), Text(value))
    table = _table("Gates", ["verdict", "gate", "found", "required"])
    for gate in found:
        table.add_row(Text(gate.verdict), Text(gate.gate), Text(gate.found), Text(gate.required))
    return Group(about, Text(), table)


def difference_table(name: str, first: str, second: str, lines: Sequence[Difference], every: bool) -> Group | Text:
    """Two releases side by side, in the lines in which they differ. With `every`, also in the others, not in bold."""
    differing = [line for line in lines if not line.same]
    same = len(lines) - len(differing)
    if not differing and not every:
        return Text(f"{name} {first} and {second} are the same in all {count(same)} facts and gates")
    table = _table(name, ["", first, second])
    for line in lines if every else differing:
        style = "" if line.same else "bold"
        table.add_row(*[Text(cell, style=style) for cell in (line.what, line.first, line.second)])
    rest = Text(f"the same in {count(same)} others" + ("" if every else ", which `--all` shows"))
    return Group(table, rest)


def _table(title: str, headings: Sequence[str]) -> Table:
    # As Text, because names come from outside and rich takes square brackets in a string for markup.
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table
