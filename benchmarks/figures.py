"""Figures in documents, each with the place in a JSON of benchmarks/results that it comes from, and their age.

    python -m benchmarks.figures            # rewrites the figures and marks of README.md and docs/ from the results
    python -m benchmarks.figures --check    # lists the stale results; fails if a figure or a mark is not right

A comment directly before a bold figure names the file, the keys that lead to the value, and how the value is worded:

    The attack recovers <!-- audit.json: attacks/rank_one/recovered_1pct, percent -->**100 %** of the weights.

A line may break inside the comment and after it, but no line may begin with it: Markdown then takes the line for HTML,
and shows the asterisks. A comment that only names a file cites it for figures that were computed from it.

A result is stale if the code or the config that it measured has changed since (benchmarks/measurement.py). Below its
heading, a section that cites stale results then says when they were measured (benchmarks/marks.py).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.marks import marked, wrong_marks
from benchmarks.measurement import RESULTS, ages
from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.storage.files import read_json, write_text

DOCUMENTS = Path(__file__).parents[1] / "docs"


def _rounded_percent(share: float, decimals: int) -> str:
    """A share as a percentage to so many decimals, unless that would make it nothing or the whole."""
    text = fixed(100 * share, decimals)
    return percent(share) if float(text) in (0, 100) else f"{text} %"


_OF_BOOLEANS = "equal or not"
WORDINGS: dict[str, Callable[[Any], str]] = {
    "percent": percent,
    "whole percent": lambda share: _rounded_percent(share, 0),
    "percent to a tenth": lambda share: _rounded_percent(share, 1),
    "count": count,
    "rounded count": lambda value: count(round(value)),
    "megabytes": lambda size: count(round(size / 1e6)),
    "gigabytes": lambda size: fixed(size / 1e9, 2),
    "minutes": lambda seconds: count(round(seconds / 60)),
    "figure": figure,
    _OF_BOOLEANS: lambda value: "equal" if value else "not equal",
    "scientific": lambda value: f"{value:.1e}".replace("e-0", "e-"),
    "three digits": lambda value: figure(value, 3),
    "whole": lambda value: fixed(value, 0),
    "one decimal": lambda value: fixed(value, 1),
    "two decimals": lambda value: fixed(value, 2),
    "three decimals": lambda value: fixed(value, 3),
    "four decimals": lambda value: fixed(value, 4),
    "five decimals": lambda value: fixed(value, 5),
    "six decimals": lambda value: fixed(value, 6),
    "seven decimals": lambda value: fixed(value, 7),
}

_COMMENT = re.compile(r"<!--(?P<content>.*?)(?P<closed>-->|\Z)(?:\s*\*\*(?P<stated>[^*]+)\*\*)?", re.DOTALL)
_CITATION = re.compile(r"[\w-]+\.json")
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
        if isinstance(value, bool) and self.wording != _OF_BOOLEANS:
            raise FigureError(f"{self.place}: {source} is {value}, not a figure")
        try:
            return WORDINGS[self.wording](value)
        except (TypeError, ValueError) as error:
            raise FigureError(f"{self.place}: {source} cannot be worded as {self.wording} ({error})") from error


def figures(text: str, document: str = "text") -> Iterator[Figure]:
    """Every figure of a document, in order. Raises `FigureError` at a comment that is malformed."""
    for match in _COMMENT.finditer(text):
        if _CITATION.fullmatch(match["content"].strip()) and match["closed"]:
            continue
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


def documents() -> list[Path]:
    """Every document that may have figures."""
    return [path for path in (DOCUMENTS.parent / "README.md", *sorted(DOCUMENTS.glob("*.md"))) if path.is_file()]


def stale_results() -> dict[str, str]:
    """The date of every stale result, by its file. Raises `FigureError` if a result does not say its age."""
    try:
        return {file: age.date for file, age in ages(RESULTS).items() if age.stale}
    except ValueError as error:
        raise FigureError(str(error)) from error


def wrong(text: str, document: str, stale: Mapping[str, str]) -> Iterator[str]:
    """What is not right in a document: figures that differ from their results, and marks."""
    for each in figures(text, document):
        measured = each.measured(RESULTS)
        if each.stated != measured:
            yield f"{each.place}: {each.stated} in place of {measured}"
    yield from wrong_marks(text, stale, document)


def main(given: Sequence[str] = ()) -> None:
    """Rewrite figures and marks of every document and name each that changed, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, list what is stale or wrong")
    try:
        if parser.parse_args(given).check:
            _check()
        else:
            _rewrite()
    except FigureError as error:
        sys.exit(str(error))


def _rewrite() -> None:
    stale = stale_results()
    for path in documents():
        before = path.read_text(encoding="utf-8")
        after = marked(rewritten(before, path.name, RESULTS), stale)
        if after != before:
            write_text(path, after)
            print(path.name)


def _check() -> None:
    stale = stale_results()
    for file, age in ages(RESULTS).items():
        if age.stale:
            print(f"stale: {file}, measured {age.date}: {age.stale}")
    found = [line for path in documents() for line in wrong(path.read_text(encoding="utf-8"), path.name, stale)]
    if found:
        sys.exit("\n".join([*found, "remedy: python -m benchmarks.figures, which writes figures and marks"]))


if __name__ == "__main__":
    main(sys.argv[1:])
