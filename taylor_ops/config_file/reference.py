"""Writes the reference of the release config in Markdown from its schema: every section and key, with limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from taylor_ops.config.tighter import TIGHTER
from taylor_ops.config_file.schema import Schema, allowed_values, file_schema, schema
from taylor_ops.presentation.wording import markdown_table

_BEGINNING = """\
# The release config, from A to Z

<!-- `taylor-release schema --markdown` writes this file from the descriptions in taylor_ops/config: change those. -->

One YAML file is one release. It needs these keys. All others have defaults:

```yaml
name: my-model-taylor
version: 1.0.0
source: {kind: folder, path: ../models/my-model}
card: {license: apache-2.0}
publish: {repo_id: my-org/my-model-taylor}
```

An unknown key is an error. Relative paths start at the folder of the config file. `taylor-release check FILE...`
reports every mistake with its line. Editors complete and check keys with the JSON Schema that the second line of each
file in `release_configs/` names.

Configs of one family can say once what they have in common. Each then names the file that says it:

```yaml
extends: common/llama.yaml
name: llama-3-8b-taylor
version: 1.0.0
source: {kind: folder, path: ../models/llama-3-8b}
publish: {repo_id: my-org/llama-3-8b-taylor}
```

What this file says counts before what the other one says. Sections are put together key by key; lists and `source`
count as a whole. Relative paths start at the folder of the file in which they stand, and errors name that file and its
line. The other file extends no third one. Keep it in a folder of its own, such as `release_configs/common/`: each YAML
file that lies directly in the folder of the configs is a release. A release depends on what both files say together,
not on how it is divided. `taylor-release changed` lists a config too if only the file that it extends changed.

Any key can have another value for one run. Write `--set latency.target_slowdown=4` on the command line. The run form of
the server, and `-p` of `prefect deployment run`, have fields for what changes often, and the parameter `more` for any
other key, as in `-p 'more=latency: {pairs: 9}'`. A section gets the keys that it is given. Every other value is
replaced as a whole. Manifest and card state what a run had in place of what its file says.

A run may tighten the keys that guard a release. It may loosen those that the file lists under `overridable`, and no
others, so that whoever starts a run cannot take away what whoever wrote the file asks for:
"""


def reference() -> str:
    """The text of the reference: the keys at the top, then each section in the order of the config."""
    places = _places(schema(), "", {})
    parts = [f"{_BEGINNING}\n{_directions()}\n## At the top\n\n{_keys(file_schema(), places)}"]
    for name, place in places.items():
        section = _defined(name)
        parts.append(f"\n## `{place}`\n\n{_text(section)}\n\n{_keys(section, places)}")
    return "".join(parts)


def _directions() -> str:
    return markdown_table(["key", "tighter is"], [[f"`{key}`", one.tighter] for key, one in TIGHTER.items()])


def _places(section: Schema, path: str, places: dict[str, str]) -> dict[str, str]:
    """The names of all sections below `section`, each with the place at which the config first has it."""
    for key, value in section["properties"].items():
        for name, kind in _sections_in(value):
            if name not in places:
                place = f"{path}.{key}".strip(".")
                places[name] = f"{place}, kind {kind}" if kind else place
                _places(_defined(name), place, places)
    return places


def _sections_in(value: Schema) -> Iterator[tuple[str, str]]:
    """The names of the sections that a value may be or list. If it chooses between kinds, each with its kind."""
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
        # A pattern tells a reader less than the description beside it.
        return re.sub(r" that matches \S+", "", allowed_values(value))
    listed = any("items" in option for option in value.get("anyOf", [value]))
    return ("a list, each as " if listed else "") + " or ".join(links)


def _default(value: Schema) -> str:
    default = value.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(_shortened(default))}`"


def _shortened(default: Any) -> Any:
    """A default without the keys of its sections that are off or not set."""
    if isinstance(default, list):
        return [_shortened(item) for item in default]
    if isinstance(default, dict):
        return {key: item for key, item in default.items() if item not in (None, False)}
    return default


def _about(value: Schema) -> str:
    """The description of a key, or else of the only section that it takes."""
    sections = [_defined(name) for name, _ in _sections_in(value)]
    return _text(value) or (_text(sections[0]) if len(sections) == 1 else "")


def _text(part: Schema) -> str:
    return " ".join(part.get("description", "").split())


def _defined(name: str) -> Schema:
    section: Schema = schema()["$defs"][name]
    return section


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-")
