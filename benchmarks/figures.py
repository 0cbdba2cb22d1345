"""Figures in documents, each linked to its place in a JSON of benchmarks/results.

    python -m benchmarks.figures        # writes the figures of docs/ anew from the results

A figure stands in bold before its link: FILE, the keys to it, and how it is worded,

    **100 %** ([`audit.json: attacks/rank_one/recovered_1pct, percent`](../benchmarks/results/audit.json))

so that no document says what no measurement found. A test fails where one differs from its result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.storage.files import read_json, write_text

RESULTS = Path(__file__).parent / "results"
DOCUMENTS = Path(__file__).parents[1] / "docs"

WORDINGS: dict[str, Callable[[Any], str]] = {
    "percent": percent,
    "count": count,
    "figure": figure,
    "three digits": lambda value: figure(value, 3),
    "whole": lambda value: fixed(value, 0),
    "one decimal": lambda value: fixed(value, 1),
    "two decimals": lambda value: fixed(value, 2),
    "six decimals": lambda value: fixed(value, 6),
}

_FIGURE = re.compile(
    r"\*\*(?P<said>[^*]+)\*\*(?P<between>\s+)\(\[`(?P<file>[\w-]+\.json): (?P<keys>[^,`]+), (?P<wording>[a-z ]+)`\]"
    r"\(\.\./benchmarks/results/(?P=file)\)\)"
)


@dataclass(frozen=True)
class Figure:
    """One figure of a document. said: as it stands there; found: as the result has it."""

    said: str
    found: str


def figures(text: str, results: Path = RESULTS) -> Iterator[Figure]:
    """Every figure of a document. Raises `KeyError` or `OSError` where a link leads nowhere."""
    for match in _FIGURE.finditer(text):
        yield Figure(match["said"], _found(match, results))


def rewritten(text: str, results: Path = RESULTS) -> str:
    """A document with the figures that the results have."""

    def renewed(match: re.Match[str]) -> str:
        return match[0].replace(f"**{match['said']}**", f"**{_found(match, results)}**", 1)

    return _FIGURE.sub(renewed, text)


def _found(match: re.Match[str], results: Path) -> str:
    value: Any = read_json(results / match["file"])
    for key in match["keys"].split("/"):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return WORDINGS[match["wording"]](value)


def main() -> None:
    """Write the figures of every document anew."""
    for path in sorted(DOCUMENTS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            write_text(path, after)
            print(path.name)


if __name__ == "__main__":
    main()
