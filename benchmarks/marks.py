"""The marks of documents: below its heading, a section whose figures are stale says when they were measured.

`python -m benchmarks.figures` writes and removes them; nobody else does. A section cites the results of its figures,
and those named by a comment alone, for figures that were computed from them:

    ... in single rounds.<!-- architectures.json -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WRITTEN = "<!-- a mark of benchmarks.figures -->"
_MARK = re.compile(rf"^\*[^\n]*\*{WRITTEN}(?:\n\n?|\Z)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} ")
_CITED = re.compile(r"<!--\s*([\w-]+\.json)\s*(?::|-->)")


@dataclass(frozen=True)
class Section:
    """A part of a document, from one heading to the next.

    Attributes:
        place: Where it begins, as document:line.
        heading: Its first line, empty if the document begins without a heading.
        body: What follows, without marks.
        mark: The mark that it has, empty if it has none.
    """

    place: str
    heading: str
    body: str
    mark: str

    @property
    def cited(self) -> set[str]:
        """The results that its figures come from, as names of files."""
        return set(_CITED.findall(self.body))

    def due(self, stale: Mapping[str, str]) -> str:
        """The mark that it should have, empty if it cites no stale result. `stale` has the date of each by its file."""
        files = {file: stale[file] for file in self.cited & stale.keys()}
        if not files:
            return ""
        of_a_day = []
        for date in sorted(set(files.values())):
            names = ", ".join(f"`{file}`" for file in sorted(files) if files[file] == date)
            of_a_day.append(f"before {date}: {names}")
        return f"*Measured {'; '.join(of_a_day)}. What was measured has changed since.*{WRITTEN}"


def sections(text: str, document: str = "text") -> Iterator[Section]:
    """The sections of a document, in order. A line of a code block is no heading."""
    lines = text.splitlines(keepends=True)
    starts, fenced = [0], False
    for number, line in enumerate(lines):
        fenced ^= line.lstrip().startswith("```")
        if number and not fenced and _HEADING.match(line):
            starts.append(number)
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        has_heading = bool(lines) and _HEADING.match(lines[start]) is not None
        heading = lines[start] if has_heading else ""
        rest = "".join(lines[start + has_heading : end])
        marks = [match[0].strip() for match in _MARK.finditer(rest)]
        yield Section(f"{document}:{start + 1}", heading, _MARK.sub("", rest), "\n".join(marks))


def marked(text: str, stale: Mapping[str, str]) -> str:
    """A document with the marks that it should have. `stale` has the date of each stale result by its file."""
    parts = []
    for section in sections(text):
        due = section.due(stale)
        body = section.body
        if due and not section.heading:
            parts += [due, "\n\n", body.lstrip("\n")]
        elif due:
            parts += [section.heading, "\n", due, "\n", body]
        else:
            parts += [section.heading, body]
    return "".join(parts)


def wrong_marks(text: str, stale: Mapping[str, str], document: str = "text") -> Iterator[str]:
    """Every section with another mark than it should have, in words that begin with its place."""
    for section in sections(text, document):
        due = section.due(stale)
        if section.mark != due:
            what = section.heading.strip("# \n") or "the beginning"
            if not due:
                yield f"{section.place}: `{what}` is marked stale, and cites no stale result"
            elif not section.mark:
                names = ", ".join(sorted(section.cited & stale.keys()))
                yield f"{section.place}: `{what}` cites stale figures of {names} without a mark"
            else:
                yield f"{section.place}: `{what}` has another mark than it should have"
