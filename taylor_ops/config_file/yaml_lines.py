"""Reads YAML text into plain values that know the line of their key, and reports every mistake in its structure.

It is safe for any text: no tag makes an object, no alias is followed, and nesting is bounded. It does not judge what a
value should be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

FILE, SET, MORE = "", "--set", "more"
"""Where a value may stand: in the file, in an argument of the command line, or in the text of the parameter `more`.

A value of the file that the config extends stands in none of these: its place is the path of that file.
"""

_MAX_DEPTH = 32
_ALIAS = "alias"
_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(_[0-9]+)*"
# JSON and paths cannot contain these characters, and a terminal may obey them.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass
class Entry:
    """A value and where it stands.

    Attributes:
        value: A scalar, or a list or dict of entries.
        line: Line of its key or list item, from 1. None if it stands in an argument.
        written: The text of a scalar as it is written.
        broken: Whether its problem is reported already, so that nothing that follows from it is.
        source: `FILE`, `SET`, `MORE` or the path of the file that the config extends: the text that has it.
    """

    value: Any
    line: int | None
    written: str = ""
    broken: bool = False
    source: str = FILE

    def below(self, key: str) -> Entry | None:
        """The entry at a key, or at an index written as text. None if there is no such entry."""
        if isinstance(self.value, dict):
            entry: Entry | None = self.value.get(key)
            return entry
        if isinstance(self.value, list) and key.isdecimal() and int(key) < len(self.value):
            item: Entry = self.value[int(key)]
            return item
        return None

    def plain(self) -> Any:
        """The value without lines, as JSON can hold it."""
        if self.broken:
            return {"": None}  # valid nowhere, so that no validator concludes anything from it
        if isinstance(self.value, dict):
            return {key: inner.plain() for key, inner in self.value.items()}
        if isinstance(self.value, list):
            return [inner.plain() for inner in self.value]
        return self.value


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        line: Line of the mistake, from 1. None if it stands in an argument, or is about the file as a whole.
        keys: The keys from the top of the config down to the mistake.
        message: What is wrong, and what to write instead.
        source: `FILE`, `SET`, `MORE` or the path of the file that the config extends: the text that has it.
    """

    line: int | None
    keys: tuple[str, ...]
    message: str
    source: str = FILE

    @property
    def key(self) -> str:
        """The keys with dots between them."""
        return _dotted(self.keys)

    def worded(self, path: Path) -> str:
        """The problem in one line, for a config read from `path`."""
        place = self.source or f"{path}:" if self.line is None else f"{self.source or path}:{self.line}:"
        key = f" {self.key}:" if self.keys else ""
        return f"{place}{key} {self.message}"


def parsed(text: str, keys: tuple[str, ...] = (), source: str = FILE) -> tuple[Entry, list[Problem]]:
    """The entry that a YAML text makes, and everything that is wrong with its structure.

    Args:
        text: The YAML text.
        keys: The keys under which the text stands in the config.
        source: `FILE`, `SET`, `MORE` or the path of the file that a config extends. Entries and problems of an argument
            have no line.
    """
    walk = _NodeWalk(source)
    try:
        node = _composed(text)
    except _NotYaml as error:
        line = None if source == SET else error.line
        return Entry(None, line, broken=True, source=source), [Problem(line, keys, str(error), source)]
    entry = walk.entry(node, keys, node) if node else Entry(None, None if source == SET else 1, source=source)
    return entry, walk.problems


def quoted(text: str) -> str:
    """The text in quotes, on one line. Of a long text, only the beginning."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _dotted(keys: Sequence[str]) -> str:
    return ".".join(key if key.isprintable() and key.strip() else repr(key) for key in keys)


class _NotYaml(ValueError):
    def __init__(self, problem: str, line: int) -> None:
        super().__init__("not valid YAML: " + " ".join(problem.split()))
        self.line = line


class _Loader(yaml.SafeLoader):
    """The safe loader, but with numbers as in YAML 1.2, without dates and base 60, and with aliases not followed."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]  # the stubs call it an instance's
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            return yaml.ScalarNode(_ALIAS, event.anchor, mark)
        if self.depth == _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {_MAX_DEPTH} levels", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _kind, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "(?i:yes|no|true|false|on|off)", "yYnNtTfFoO"),
    ("int", r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)", "-+0123456789"),
    ("float", rf"[-+]?({_DIGITS}\.({_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)


def _composed(text: str) -> yaml.Node | None:
    """The root node of a YAML text, or None if the text is empty or null. Raises `_NotYaml`."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        character = f"the control character U+{ord(text[error.position]):04X} must not stand in it"
        raise _NotYaml(character, 1 + text.count("\n", 0, error.position)) from error
    last_line = max(1, len(text.splitlines()))
    try:
        node = loader.get_single_node()
        return None if node is None or node.tag == _TAG + "null" else node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        since = f" (line {error.context_mark.line + 1})" if error.context_mark else ""
        context = f"{error.context}{since}, " if error.context else ""
        raise _NotYaml(f"{context}{error.problem}", min(mark.line + 1, last_line)) from error
    except (ValueError, OverflowError) as error:
        # For escapes without a character and directives without a version, PyYAML passes on Python's own errors.
        raise _NotYaml("an escape or directive is out of range", min(loader.get_mark().line + 1, last_line)) from error
    finally:
        loader.dispose()


class _NodeWalk:
    """Turns YAML nodes into entries and collects the problems of their structure."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def entry(self, node: yaml.Node, keys: tuple[str, ...], at: yaml.Node) -> Entry:
        """The entry of `node`, which stands at `keys`. Its line is the line of the node `at`."""
        line = self._line(at)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Entry(self._mapping(node, keys), line, source=self.source)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = [self.entry(item, (*keys, str(i)), item) for i, item in enumerate(node.value)]
            return Entry(items, line, source=self.source)
        written = str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""
        try:
            return Entry(_scalar(node), line, written, source=self.source)
        except ValueError as error:
            self.problems.append(Problem(line, keys, str(error), self.source))
            return Entry(None, line, written, broken=True, source=self.source)

    def _mapping(self, node: yaml.MappingNode, keys: tuple[str, ...]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            line = self._line(key_node)
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            problem = _key_problem(key_node)
            if problem is None and key in entries:
                lines = f", in lines {entries[key].line} and {line}" if line else ""
                problem = f"is given twice{lines}; keep one of them"
            if problem is None:
                entries[key] = self.entry(value_node, (*keys, key), key_node)
            else:
                self.problems.append(Problem(line, (*keys, key), problem, self.source))
        return entries

    def _line(self, node: yaml.Node) -> int | None:
        return None if self.source == SET else node.start_mark.line + 1


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    """The value of a scalar node. Raises `ValueError` with the problem."""
    text = node.value
    if node.tag == _ALIAS:
        raise ValueError(f"is the alias {quoted('*' + text)}; aliases are not supported, write the value out")
    kind = node.tag.removeprefix(_TAG)
    if not isinstance(node, yaml.ScalarNode) or kind not in ("str", "null", "bool", "int", "float"):
        raise ValueError(f"has the tag {quoted(node.tag.replace(_TAG, '!!'))}; tags are not supported, take it away")
    if kind == "null":
        return None
    if kind == "str":
        if _UNUSABLE.search(text):
            raise ValueError(f"is {quoted(text)}, with a character that must not stand in text")
        return str(text)
    try:
        if kind == "bool":
            return yaml.SafeLoader.bool_values[text.lower()]
        number = int(text) if kind == "int" else float(text)
    except (KeyError, ValueError):
        raise ValueError(f"is {quoted(text)}, which cannot be read as {kind}") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"is {quoted(text)}, must be a finite number")
    return number


def _key_problem(node: yaml.Node) -> str | None:
    if node.tag == _ALIAS or (node.value == "<<" and getattr(node, "style", None) is None):
        return "aliases and merge keys are not supported; write the keys out"
    if node.tag != _TAG + "str":
        return "this key is not read as text; put it in quotes, or correct it"
    if _UNUSABLE.search(node.value):
        return "this key has a character that must not stand in text"
    return None
