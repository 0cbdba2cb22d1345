"""The release config from A to Z, in Markdown, written from its schema: every section, every key, its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from taylor_ops.config_file.schema import Schema, allowed_values, schema
from taylor_ops.presentation.wording import markdown_table

_BEGINNING = """\
# The release config, from A to Z

<!-- Written by `taylor-release schema --markdown`: change the descriptions in taylor_ops/, then write it again. -->

One YAML file is one release. These keys are the least that it says; all others have defaults:

```yaml
name: my-model-taylor
version: 1.0.0
source: {kind: folder, path: ../models/my-model}
card: {license: apache-2.0}
publish: {repo_id: my-org/my-model-taylor}
```

An unknown key is an error. Relative paths are taken from the folder of the config file. `taylor-release check FILE...`
tells every mistake with its line, and editors complete and check keys by the schema that the first lines of the files
in `release_configs/` name. Any key can have another value for one run: `--set latency.target_slowdown=4` on the command
line, `-p 'overrides={"latency": {"target_slowdown": 4}}'` with `prefect deployment run`.
"""


def reference() -> str:
    """The whole text: the keys at the top, then a part for each section in the order in which the config has them."""
    places = _places(schema(), "", {})
    parts = [f"{_BEGINNING}\n## At the top\n\n{_keys(schema(), places)}"]
    for name, place in places.items():
        section = _defined(name)
        parts.append(f"\n## `{place}`\n\n{_text(section)}\n\n{_keys(section, places)}")
    return "".join(parts)


def _places(section: Schema, path: str, found: dict[str, str]) -> dict[str, str]:
    """Names of all sections below one, each with the place at which the config first has it."""
    for key, value in section["properties"].items():
        for name, kind in _sections_in(value):
            if name not in found:
                place = f"{path}.{key}".strip(".")
                found[name] = f"{place}, kind {kind}" if kind else place
                _places(_defined(name), place, found)
    return found


def _sections_in(value: Schema) -> Iterator[tuple[str, str]]:
    """The sections that a value may be or list, by name, and the kind of each where there are several."""
    if "discriminator" in value:
        for kind, target in value["discriminator"]["mapping"].items():
            yield target.rpartition("/")[2], kind
    else:
        for option in value.get("anyOf", [value]):
            name = (option.get("$ref") or option.get("items", {}).get("$ref", "")).rpartition("/")[2]
            if name and "properties" in _defined(name):
                yield name, ""


def _keys(section: Schema, places: dict[str, str]) -> str:
    required = section.get("required", [])
    rows = [
        [f"`{key}`", _value(value, places), "required" if key in required else _default(value), _about(value)]
        for key, value in section["properties"].items()
    ]
    return markdown_table(["key", "takes", "default", ""], rows)


def _value(value: Schema, places: dict[str, str]) -> str:
    links = [f"[`{places[name]}`](#{_anchor(places[name])})" for name, _ in _sections_in(value)]
    if not links:
        # A pattern says less than the description beside it.
        return re.sub(r" that matches \S+", "", allowed_values(value))
    listed = any("items" in option for option in value.get("anyOf", [value]))
    return ("a list, each as " if listed else "") + " or ".join(links)


def _default(value: Schema) -> str:
    default = value.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(_said(default))}`"


def _said(default: Any) -> Any:
    """A default without the keys by which it says nothing."""
    if isinstance(default, list):
        return [_said(item) for item in default]
    if isinstance(default, dict):
        return {key: item for key, item in default.items() if item not in (None, False)}
    return default


def _about(value: Schema) -> str:
    """What the schema says of a key, or else of the one section that it takes."""
    sections = [_defined(name) for name, _ in _sections_in(value)]
    return _text(value) or (_text(sections[0]) if len(sections) == 1 else "")


def _text(part: Schema) -> str:
    return " ".join(part.get("description", "").split())


def _defined(name: str) -> Schema:
    found: Schema = schema()["$defs"][name]
    return found


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-")
