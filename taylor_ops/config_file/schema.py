"""The JSON Schema of a release config, and what it allows at a place."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.storage.files import canonical_json

Schema = dict[str, Any]


@cache
def schema() -> Schema:
    """JSON Schema of the config (draft 2020-12). Every call gives the same mapping: leave it as it is."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ReleaseConfig.model_json_schema()}


def schema_text() -> str:
    """The JSON Schema as canonical JSON text: what editors read to complete and check a config."""
    return canonical_json(schema())


def allowed_values(here: Schema) -> str:
    """What a schema allows, in words that follow "must be"."""
    here = dereferenced(here)
    if "anyOf" in here:
        return " or ".join(allowed_values(option) for option in here["anyOf"])
    if "discriminator" in here:
        choice = here["discriminator"]
        return f"a section whose `{choice['propertyName']}` is {listed(choice['mapping'])}"
    if "const" in here or "enum" in here:
        return listed(here.get("enum") or [here["const"]])
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
            return f"a section with {listed(here.get('required') or here['properties'], 'and')}"
        case other:
            return str(other)


def _limits(here: Schema) -> str:
    if "minimum" in here and "maximum" in here:
        return f" from {here['minimum']} to {here['maximum']}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {here[key]}" for key, word in words.items() if key in here]
    return " " + " and ".join(limits) if limits else ""


def listed(names: Iterable[str], word: str = "or") -> str:
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} {word} {last}" if most else last


def dereferenced(here: Schema) -> Schema:
    while "$ref" in here:
        here = schema()["$defs"][here["$ref"].rpartition("/")[2]]
    return here


def resolved(here: Schema) -> Schema:
    """The schema itself: behind its reference, and without the null that an optional value may be."""
    here = dereferenced(here)
    for option in here.get("anyOf", []):
        if option.get("type") != "null":
            return dereferenced(option)
    return here


def schema_below(here: Schema, key: str) -> Schema:
    here = resolved(here)
    choice = here.get("discriminator")
    if choice and key == choice["propertyName"]:
        return {"enum": list(choice["mapping"])}
    below: Schema = here.get("items") or here.get("properties", {}).get(key) or {}
    return below
