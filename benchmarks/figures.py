"""Figures in documents, each with the place in a JSON of benchmarks/results that it comes from.

    python -m benchmarks.figures        # rewrites the figures of docs/ from the results

A comment directly before a bold figure names the file, the keys that lead to the value, and how the value is worded:

    The attack recovers <!-- audit.json: attacks/rank_one/recovered_1pct, percent -->**100 %** of the weights.

A line may break inside the comment and after it, but no line may begin with it: Markdown then takes the line for HTML,
and shows the asterisks. A test fails if a figure differs from its result.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.storage.files import read_json, write_text

RESULTS = Path(__file__).parent / "results"
DOCUMENTS = Path(__file__).parents[1] / "docs"


def _rounded_percent(share: float, decimals: int) -> str:
    """A share as a percentage to so many decimals, unless that would make it nothing or the whole."""
    text = fixed(100 * share, decimals)
    return percent(share) if float(text) in (0, 100) else f"{text} %"


WORDINGS: dict[str, Callable[[Any], str]] = {
    "percent": percent,
    "whole percent": lambda share: _rounded_percent(share, 0),
    "percent to a tenth": lambda share: _rounded_percent(share, 1),
    "count": count,
    "rounded count": lambda value: count(round(value)),
    "megabytes": lambda size: count(round(size / 1e6)),
    "gigabytes": lambda size: fixed(size / 1e9, 2),
    "figure": figure,
    "scientific": lambda value: f"{value:.1e}".replace("e-0", "e-"),
    "three digits": lambda value: figure(value, 3),
    "whole": lambda value: fixed(value, 0),
    "one decimal": lambda value: fixed(value, 1),
    "two decimals": lambda value: fixed(value, 2),
    "three decimals": lambda value: fixed(value, 3),
    "five decimals": lambda value: fixed(value, 5),
    "six decimals": lambda value: fixed(value, 6),
}

_COMMENT = re.compile(r"<!--(?P<content>.*?)(?P<closed>-->|\Z)(?:\s*\*\*(?P<stated>[^*]+)\*\*)?", re.DOTALL)
_SOURCE = re.compile(r"(?P<file>[\w-]+\.json): (?P<keys>.+), (?P<wording>[^,]+)")
_LINE_START = re.compile(r"[\s>*+-]*(?:\d+[.)])?\s*")
_FORM = "<!-- FILE.json: KEY/KEY, WORDING -->**FIGURE**"


class FigureError(ValueError):
    """A comment for a figure is malformed, or leads to no value. The message begins with its place."""


@dataclass(frozen=True)
class Figure:
    """One figure of a document.

    Attributes:
        file: the result that it comes from, a file of benchmarks/results
        keys: the keys that lead to the value in that file; the key of a list is an index
        wording: how the value is worded, one of `WORDINGS`
        stated: the figure as it stands in the document
        place: where it stands, as document:line
        start: the position of `stated` in the text
    """

    file: str
    keys: tuple[str, ...]
    wording: str
    stated: str
    place: str
    start: int

    def measured(self, results: Path = RESULTS) -> str:
        """The figure as its result has it. Raises `FigureError` if the comment leads to no value."""
        source = f"{self.file}: {'/'.join(self.keys)}"
        try:
            value: Any = read_json(results / self.file)
            for key in self.keys:
                value = value[int(key)] if isinstance(value, list) else value[key]
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise FigureError(f"{self.place}: nothing at {source} ({type(error).__name__}: {error})") from error
        if isinstance(value, bool):
            raise FigureError(f"{self.place}: {source} is {value}, not a figure")
        try:
            return WORDINGS[self.wording](value)
        except (TypeError, ValueError) as error:
            raise FigureError(f"{self.place}: {source} cannot be worded as {self.wording} ({error})") from error


def figures(text: str, document: str = "text") -> Iterator[Figure]:
    """Every figure of a document, in order. Raises `FigureError` at a comment that is malformed."""
    for match in _COMMENT.finditer(text):
        # Other comments, for those who edit a document, name no result and stand before no bold number.
        if ".json" in match["content"] or re.search(r"\d", match["stated"] or ""):
            line = text.count("\n", 0, match.start()) + 1
            yield _figure(match, f"{document}:{line}")


def _figure(match: re.Match[str], place: str) -> Figure:
    content = " ".join(match["content"].split())
    line_before = match.string[: match.start()].rpartition("\n")[2]
    source = _SOURCE.fullmatch(content)
    if not match["closed"] or "--" in content:
        raise FigureError(f"{place}: a comment is not closed, or has `--` inside")
    if source is None:
        raise FigureError(f"{place}: `{content}` names no figure; write {_FORM}")
    if not match["stated"]:
        raise FigureError(f"{place}: no bold figure follows the comment `{content}`; write {_FORM}")
    if source["wording"] not in WORDINGS:
        raise FigureError(f"{place}: unknown wording `{source['wording']}`; choose from {', '.join(WORDINGS)}")
    if re.search(r"\n\s*\n", match[0]):
        raise FigureError(f"{place}: a blank line parts the comment `{content}` from its figure")
    if _LINE_START.fullmatch(line_before):
        raise FigureError(f"{place}: a line begins with the comment `{content}`; put a word before it")
    keys = tuple(source["keys"].split("/"))
    return Figure(source["file"], keys, source["wording"], match["stated"], place, match.start("stated"))


def rewritten(text: str, document: str = "text", results: Path = RESULTS) -> str:
    """A document with the figures that the results have."""
    parts = []
    end = 0
    for each in figures(text, document):
        parts += [text[end : each.start], each.measured(results)]
        end = each.start + len(each.stated)
    return "".join([*parts, text[end:]])


def main() -> None:
    """Rewrite the figures of every document, and print the name of each that changed."""
    for path in sorted(DOCUMENTS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        try:
            after = rewritten(before, path.name, RESULTS)
        except FigureError as error:
            sys.exit(str(error))
        if after != before:
            write_text(path, after)
            print(path.name)


if __name__ == "__main__":
    main()
