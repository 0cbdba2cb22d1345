"""The JSON Schema of a release config, and the values that it allows at each place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.storage.files import canonical_json

Schema = dict[str, Any]


@cache
def schema() -> Schema:
    """JSON Schema of the config (draft 2020-12). Every call gives the same mapping, so do not change it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ReleaseConfig.model_json_schema()}


EXTENDS = "extends"
"""The key of a config file that names the file with what several configs have in common."""

SUFFIX = ".yaml"
"""The end of the name of every config and of what it extends, by which a push that changes either is recognised."""

_EXTENDS = (
    "YAML file with what several configs have in common, relative to the folder of this file. Its keys count where "
    "this file has none of its own: sections key by key, lists and `source` as a whole. It extends no other file."
)


@cache
def file_schema() -> Schema:
    """The schema with the key `extends`, which a file may have and a config that was read has not. Do not change it."""
    extends = {"type": "string", "pattern": f"{re.escape(SUFFIX)}$", "description": _EXTENDS}
    return {**schema(), "properties": {**schema()["properties"], EXTENDS: extends}}


def schema_text() -> str:
    """The JSON Schema as canonical JSON text. Editors read it to complete and check a config file.

    A file that extends another need not have every required key: the other file may have it.
    """
    full = deepcopy(file_schema())
    seen: list[Schema] = []
    required = _required_by(full, full["$defs"], seen)
    for section in seen:
        section.pop("required", None)
    return canonical_json({**full, "if": {"required": [EXTENDS]}, "then": True, "else": required})


def _required_by(section: Schema, definitions: Schema, seen: list[Schema]) -> Schema:
    """What a section and those below it require, as a schema of its own. `seen` receives these sections.

    Items of lists and a `source` are not among them, because a file gives these as a whole.
    """
    seen.append(section)
    rules: Schema = {"required": section["required"]} if "required" in section else {}
    below: Schema = {}
    for key, value in section["properties"].items():
        for option in value.get("anyOf", [value]):
            inner = definitions.get(option.get("$ref", "").rpartition("/")[2], {})
            found = _required_by(inner, definitions, seen) if "properties" in inner else {}
            below |= {key: found} if found else {}
    return rules | ({"properties": below} if below else {})


def allowed_values(part: Schema) -> str:
    """The values that a part of the schema allows, in words that follow "must be"."""
    part = dereferenced(part)
    if "anyOf" in part:
        return " or ".join(allowed_values(option) for option in part["anyOf"])
    if "discriminator" in part:
        choice = part["discriminator"]
        return f"a section whose `{choice['propertyName']}` is {listed(choice['mapping'])}"
    if "const" in part or "enum" in part:
        return listed(part.get("enum") or [part["const"]])
    match part["type"]:
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _limits(part)
        case "string":
            text = "text that is not empty" if part.get("minLength") else "text"
            return text + (f" that matches {part['pattern']}" if "pattern" in part else "")
        case "array":
            return "a list" + (f" of at least {part['minItems']}" if part.get("minItems") else "")
        case "object":
            return f"a section with {listed(part.get('required') or part['properties'], 'and')}"
        case kind:
            return str(kind)


def _limits(part: Schema) -> str:
    if "minimum" in part and "maximum" in part:
        return f" from {part['minimum']} to {part['maximum']}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {part[key]}" for key, word in words.items() if key in part]
    return " " + " and ".join(limits) if limits else ""


def listed(names: Iterable[str], word: str = "or") -> str:
    """Names as code, with `word` before the last one."""
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} {word} {last}" if most else last


def dereferenced(part: Schema) -> Schema:
    """The part of the schema to which a reference leads; any other part unchanged."""
    while "$ref" in part:
        part = schema()["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def resolved(part: Schema) -> Schema:
    """The part of the schema behind references, without the null that an optional value may be."""
    part = dereferenced(part)
    for option in part.get("anyOf", []):
        if option.get("type") != "null":
            return dereferenced(option)
    return part


def schema_below(part: Schema, key: str) -> Schema:
    """What the schema allows at a key of a section, or for an item of a list. Empty if it knows no such key."""
    part = resolved(part)
    choice = part.get("discriminator")
    if choice and key == choice["propertyName"]:
        return {"enum": list(choice["mapping"])}
    below: Schema = part.get("items") or part.get("properties", {}).get(key) or {}
    return below
