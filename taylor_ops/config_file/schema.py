"""The JSON Schema of a release config, and the values that it allows at each place."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.storage.files import canonical_json

Schema = dict[str, Any]


@cache
def schema() -> Schema:
    """JSON Schema of the config (draft 2020-12). Every call gives the same mapping, so do not change it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ReleaseConfig.model_json_schema()}


def schema_text() -> str:
    """The JSON Schema as canonical JSON text. Editors read it to complete and check a config."""
    return canonical_json(schema())


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
