"""The run form of Prefect's UI: what it holds of a deployment when a person opens it, which is what it then sends.

Prefect ships two UIs, which read the schema of the parameters alike (`SchemaFormProperty` in `server/ui/assets`, and
`schema-form-*.js` in `server/ui-v2/assets`). Each property that has no value yet gets its default, null too. A choice
shows the option that fits the default, or else the first. A section is opened as its properties are, a property of type
null sends null, and the older UI sends a switch without a default as off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_NOTHING = object()


def prefilled(schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the form of a deployment with these parameters, before a person has touched it."""
    values = dict(parameters)
    for name, described in schema["properties"].items():
        value = _value(schema, described, values.get(name, _NOTHING))
        if value is not _NOTHING:
            values[name] = value
    return values


def _value(schema: Mapping[str, Any], described: Mapping[str, Any], value: Any) -> Any:
    described = _followed(schema, described)
    if value is _NOTHING:
        value = described.get("default", _NOTHING)
    if "anyOf" in described:
        options = [_followed(schema, option) for option in described["anyOf"]]
        fitting = [option for option in options if value is not _NOTHING and option.get("type") == _type(value)]
        described = (fitting or options)[0]
    if described.get("type") == "object" and "properties" in described:
        inner = prefilled(described, {} if value is _NOTHING else value)
        return inner or value
    if value is _NOTHING and described.get("type") in ("boolean", "null"):
        return False if described["type"] == "boolean" else None
    return value


def _type(value: Any) -> str:
    return "null" if value is None else _TYPES[type(value)]


def _followed(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference leads to, with what stands beside it."""
    name = described.get("$ref", "").rpartition("/")[2]
    return {**schema.get("definitions", {}).get(name, {}), **described}
