"""Reads a YAML release config with its overrides, or says everything that is wrong with it, each error with its line.

`read(path)` gives a `LoadedConfig` or raises `ConfigErrors`. Structure is judged by `yaml_entries`, values by
`ReleaseConfig`; what is allowed at a place is worded from the JSON Schema of the model, so that limits stand in one
place only.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.storage.files import canonical_json
from taylor_ops.yaml_entries import Entry, Problem, parsed, quoted

_MAX_BYTES = 1_000_000

Schema = dict[str, Any]


class ConfigErrors(BadInput):
    """Everything that is wrong with a config: `lines` holds one `file:line: key.path: problem` each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines), "correct these; `taylor-release schema` lists every key and its limits")
        self.lines = lines
        self.args = (lines,)  # an exception is unpickled from its arguments

    def __str__(self) -> str:
        return self.cause


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config and what it was read from.

    `document` is the mapping of the file after overrides, relative paths untouched; `text` is the file verbatim.
    """

    config: ReleaseConfig
    document: dict[str, Any]
    text: str
    path: Path

    @property
    def sha256(self) -> str:
        """SHA-256 of the document: equal for configs that say the same, however they are written."""
        return hashlib.sha256(canonical_json(self.document).encode()).hexdigest()


def read(path: Path, overrides: Mapping[str, str] = {}) -> LoadedConfig:
    """Read and validate the config at `path`, with `overrides` (dotted key to YAML value) put over it.

    Raises `ConfigErrors` with every error of the file and of the overrides, in the order of their lines.
    """
    text = _text_of(path)
    root, problems = parsed(text)
    if not isinstance(root.value, dict):
        if not root.broken:
            problems = [Problem(root.line, (), f"the file is {_shown(root)}, must be {allowed_values(schema())}")]
        raise ConfigErrors([problem.worded(path) for problem in problems])

    for key, value in overrides.items():
        problems += _override(root, key, value)
    document = root.plain()
    try:
        # JSON is the form in which pydantic is strict about types and still takes lists and paths as YAML has them.
        config = ReleaseConfig.model_validate_json(json.dumps(document), strict=True, context={"folder": path.parent})
    except ValidationError as error:
        problems += _explained(error, root)
    if problems:
        in_order = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        raise ConfigErrors([problem.worded(path) for problem in in_order])
    return LoadedConfig(config, document, text, path)


@cache
def schema() -> Schema:
    """JSON Schema of the config (draft 2020-12). Every call gives the same mapping: leave it as it is."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ReleaseConfig.model_json_schema()}


def schema_text() -> str:
    """The JSON Schema as canonical JSON text: what editors read to complete and check a config."""
    return canonical_json(schema())


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigErrors([f"{path}: cannot be read: {error.strerror or error}"]) from error
    if len(data) > _MAX_BYTES:
        raise ConfigErrors([f"{path}: is larger than {_MAX_BYTES} bytes; this is no release config"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise ConfigErrors([f"{path}:{line}: is not UTF-8 text; save the file as UTF-8"]) from error


# Overrides -----------------------------------------------------------------------------------------------------------


def _override(root: Entry, key: str, text: str) -> list[Problem]:
    """Put a value at a dotted key, making the sections on the way, and return what is wrong with it."""
    keys = tuple(key.split("."))
    new, problems = parsed(text, keys, in_file=False)
    target, schema_here = root, schema()
    for part in keys:
        schema_here = _schema_below(schema_here, part)
        if isinstance(target.value, dict) and part not in target.value:
            target.value[part] = _implied(schema_here)
        inner = target.below(part)
        if inner is None:
            if not target.broken:
                problems.append(Problem(None, keys, f"there is no {quoted(part)} here: {_reason(target)}"))
            return problems
        target = inner
    vars(target).update(vars(new))  # in place, whether a section or a list holds it
    return problems


def _implied(schema_here: Schema) -> Entry:
    """What an override descends into where the file says nothing: the default list, or an empty section."""
    default = schema_here.get("default")
    entry, _ = parsed(json.dumps(default if isinstance(default, list) else {}), in_file=False)
    return entry


def _reason(target: Entry) -> str:
    if isinstance(target.value, list):
        return f"this is a list of {len(target.value)}, counted from 0"
    return f"this is {_shown(target)}, not a section"


# Wording -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where an error stands: `entry` is None where the file has nothing there; `around` is the schema one level up."""

    line: int | None
    keys: tuple[str, ...]
    entry: Entry | None
    schema: Schema
    around: Schema


def _explained(error: ValidationError, root: Entry) -> Iterator[Problem]:
    found = error.errors(include_url=False, include_input=False)
    holders = {one["loc"][:depth] for one in found for depth in range(len(one["loc"]))}
    for one in found:
        kind, location, context = one["type"], one["loc"], one.get("ctx", {})
        # A list whose item is wrong is also called too short: the error inside it is the one to correct.
        if kind == "too_short" and location in holders:
            continue
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            location = (*location, context["discriminator"].strip("'"))
        place = _place_of(root, location)
        if place is not None:
            yield Problem(place.line, place.keys, _message(kind, context, place))


def _place_of(root: Entry, location: tuple[int | str, ...]) -> _Place | None:
    """The place of a pydantic location, or None where the file is already known to be broken."""
    place = _Place(root.line, (), root, schema(), {})
    for part in map(str, location):
        here = _resolved(place.schema)
        kinds = here.get("discriminator", {}).get("mapping", {})
        if part in kinds:
            # pydantic puts the chosen kind into the location, where the file has no key
            place = replace(place, schema={"$ref": kinds[part]})
            continue
        entry = place.entry.below(part) if place.entry else None
        line = entry.line if entry else place.line
        place = _Place(line, (*place.keys, part), entry, _schema_below(here, part), here)
        if entry is not None and entry.broken:
            return None
    return place


def _message(kind: str, context: Mapping[str, Any], place: _Place) -> str:
    if "error" in context:
        return str(context["error"])
    if kind == "extra_forbidden":
        known = list(place.around.get("properties", {}))
        near = difflib.get_close_matches(place.keys[-1], known, n=1)
        if near:
            return f"unknown key; did you mean {_listed(near)}?"
        return f"unknown key; the keys here are {_listed(known, 'and')}"
    allowed = allowed_values(place.schema)
    description = place.schema.get("description", "").rstrip(".")
    if description and "pattern" in _resolved(place.schema):
        allowed += f" ({description})"
    if place.entry is None:
        return f"is required; it must be {allowed}"
    return f"is {_shown(place.entry)}, must be {allowed}{_advice(place)}"


def allowed_values(here: Schema) -> str:
    """What a schema allows, in words that follow "must be"."""
    here = _dereferenced(here)
    if "anyOf" in here:
        return " or ".join(allowed_values(option) for option in here["anyOf"])
    if "discriminator" in here:
        choice = here["discriminator"]
        return f"a section whose `{choice['propertyName']}` is {_listed(choice['mapping'])}"
    if "const" in here or "enum" in here:
        return _listed(here.get("enum") or [here["const"]])
    match here["type"]:
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _limits(here)
        case "string":
            some = "text that is not empty" if here.get("minLength") else "text"
            return some + (f" that matches {here['pattern']}" if "pattern" in here else "")
        case "array":
            return "a list" + (f" of at least {here['minItems']}" if here.get("minItems") else "")
        case "object":
            return f"a section with {_listed(here.get('required') or here['properties'], 'and')}"
        case other:
            return str(other)


def _limits(here: Schema) -> str:
    if "minimum" in here and "maximum" in here:
        return f" from {here['minimum']} to {here['maximum']}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {here[key]}" for key, word in words.items() if key in here]
    return " " + " and ".join(limits) if limits else ""


def _advice(place: _Place) -> str:
    """How to write the value where YAML read another type than was meant."""
    assert place.entry is not None
    value, written = place.entry.value, place.entry.written
    options = [_dereferenced(option) for option in place.schema.get("anyOf", [place.schema])]
    wanted = {option.get("type", "string") for option in options}
    if isinstance(value, bool | int | float) and "string" in wanted:
        return f'; put it in quotes: "{written}"'
    if isinstance(value, str) and wanted & {"integer", "number"} and re.fullmatch(r"[-+]?[0-9.]+", written):
        return "; take the quotes away"
    if isinstance(value, str) and "array" in wanted:
        return "; write each item on a line of its own after a dash, or in [ ]"
    return ""


def _shown(entry: Entry) -> str:
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


def _listed(names: Iterable[str], word: str = "or") -> str:
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} {word} {last}" if most else last


# The schema ----------------------------------------------------------------------------------------------------------


def _dereferenced(here: Schema) -> Schema:
    while "$ref" in here:
        here = schema()["$defs"][here["$ref"].rpartition("/")[2]]
    return here


def _resolved(here: Schema) -> Schema:
    """The schema itself: behind its reference, and without the null that an optional value may be."""
    here = _dereferenced(here)
    for option in here.get("anyOf", []):
        if option.get("type") != "null":
            return _dereferenced(option)
    return here


def _schema_below(here: Schema, key: str) -> Schema:
    here = _resolved(here)
    choice = here.get("discriminator")
    if choice and key == choice["propertyName"]:
        return {"enum": list(choice["mapping"])}
    below: Schema = here.get("items") or here.get("properties", {}).get(key) or {}
    return below
