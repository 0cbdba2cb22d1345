"""Validation errors in words: what is wrong, at which line, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from taylor_ops.config_file.schema import (
    Schema,
    allowed_values,
    dereferenced,
    file_schema,
    listed,
    resolved,
    schema_below,
)
from taylor_ops.config_file.yaml_lines import Entry, Problem, quoted


@dataclass(frozen=True)
class _Place:
    """Where an error stands.

    Attributes:
        line: Line of the entry, or of the nearest entry above it that there is. None in an argument.
        keys: The keys from the top of the config down to here.
        entry: The entry, or None if the file has none.
        schema: What the schema allows here.
        around: What the schema allows one level up.
        source: The text that has the entry, or the nearest entry above it.
    """

    line: int | None
    keys: tuple[str, ...]
    entry: Entry | None
    schema: Schema
    around: Schema
    source: str


def explained(error: ValidationError, root: Entry) -> Iterator[Problem]:
    """The problems of a config that pydantic rejected, placed in the entries of its file."""
    details = error.errors(include_url=False, include_input=False)
    holders = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    for detail in details:
        kind, location, context = detail["type"], detail["loc"], detail.get("ctx", {})
        # If an item of a list is wrong, pydantic also calls the list too short. Only the item needs a correction.
        if kind == "too_short" and location in holders:
            continue
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            location = (*location, context["discriminator"].strip("'"))
        place = _place_of(root, location)
        if place is not None:
            yield Problem(place.line, place.keys, _message(kind, context, place), place.source)


def _place_of(root: Entry, location: tuple[int | str, ...]) -> _Place | None:
    """The place of a pydantic location, or None if the file is already known to be broken there."""
    place = _Place(root.line, (), root, file_schema(), {}, root.source)
    for part in map(str, location):
        around = resolved(place.schema)
        kinds = around.get("discriminator", {}).get("mapping", {})
        if part in kinds:
            # pydantic puts the chosen kind into the location, although the file has no key for it.
            place = replace(place, schema={"$ref": kinds[part]})
            continue
        entry = place.entry.below(part) if place.entry else None
        line, source = (entry.line, entry.source) if entry else (place.line, place.source)
        place = _Place(line, (*place.keys, part), entry, schema_below(around, part), around, source)
        if entry is not None and entry.broken:
            return None
    return place


def _message(kind: str, context: Mapping[str, Any], place: _Place) -> str:
    if "error" in context:
        return str(context["error"])
    if kind == "extra_forbidden":
        allowed_keys = list(place.around.get("properties", {}))
        near = difflib.get_close_matches(place.keys[-1], allowed_keys, n=1)
        if near:
            return f"unknown key; did you mean {listed(near)}?"
        return f"unknown key; the keys here are {listed(allowed_keys, 'and')}"
    allowed = allowed_values(place.schema)
    description = place.schema.get("description", "").rstrip(".")
    if description and "pattern" in resolved(place.schema):
        allowed += f" ({description})"
    if place.entry is None:
        return f"is required; it must be {allowed}"
    return f"is {shown(place.entry)}, must be {allowed}{_advice(place)}"


def _advice(place: _Place) -> str:
    """How to write the value, if YAML may have read another type than was meant."""
    assert place.entry is not None
    value, written = place.entry.value, place.entry.written
    options = [dereferenced(option) for option in place.schema.get("anyOf", [place.schema])]
    types = {option.get("type", "string") for option in options}
    if "string" in types:
        meant = _fitting(written, resolved(place.schema).get("pattern", ""))
        if isinstance(value, bool | int | float) and meant:
            return f'; put it in quotes: "{meant}"'
        if isinstance(value, str) and meant not in (None, written):
            return f'; write "{meant}"'
    if isinstance(value, str) and types & {"integer", "number"} and re.fullmatch(r"[-+]?[0-9.]+", written):
        return "; take the quotes away"
    if isinstance(value, str) and "array" in types:
        return "; write each item on a line of its own after a dash, or in [ ]"
    return ""


def _fitting(written: str, pattern: str) -> str | None:
    """The text that a pattern takes: what is written, or a version with the numbers that it lacks. None if neither."""
    candidates = (written, f"{written}.0", f"{written}.0.0")
    return next((text for text in candidates if re.search(pattern, text)), None)


def shown(entry: Entry) -> str:
    """The value of an entry in words that follow "is"."""
    match entry.value:
        case None:
            return "empty"
        case bool():
            return f"the truth value {entry.written}"
        case str():
            return f"the text {quoted(entry.value)}"
        case int() | float():
            return f"the number {entry.written[:60]}"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case _:
            return "a section"
