"""The file that a config extends: its keys stand in for those that the config does not have itself."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any

from taylor_ops.config_file.explain import shown
from taylor_ops.config_file.file_text import NoText, text_of
from taylor_ops.config_file.schema import EXTENDS, SUFFIX, Schema, dereferenced, resolved, schema, schema_below
from taylor_ops.config_file.yaml_lines import Entry, Problem, parsed

_KEYS = (EXTENDS,)


def extended(root: Entry, path: Path) -> list[Problem]:
    """Take the key `extends` out of a config, and put in what the file that it names has and the config has not.

    A section is put in key by key, and one that says its `kind` as a whole, because keys of another kind would be left
    in it. A list is replaced as a whole. Relative paths of the other file are changed to start at the folder of `path`.

    Args:
        root: The entries of the config, a section.
        path: Path of the config.

    Returns:
        What is wrong with the key, and with the structure of the other file.
    """
    named = root.value.pop(EXTENDS, None)
    if named is None or named.broken:
        return []
    if not isinstance(named.value, str) or not named.value.endswith(SUFFIX):
        must = f"must be the path of a file {SUFFIX}, relative to the folder of this file"
        return [Problem(named.line, _KEYS, f"is {shown(named)}, {must}")]
    place = path.parent / named.value
    try:
        base, problems = parsed(text_of(place, only_a_file=True), source=str(place))
    except NoText as error:
        if error.line is None:
            return [Problem(named.line, _KEYS, f"{place} {error}")]
        return [Problem(error.line, (), str(error), str(place))]
    if place.samefile(path):
        return [Problem(named.line, _KEYS, "names this file itself; name the file with the common part")]
    if not isinstance(base.value, dict):
        if not base.broken:
            problems = [Problem(base.line, (), f"the file is {shown(base)}, must be a section with keys", str(place))]
        return problems
    further = base.value.pop(EXTENDS, None)
    if further is not None:
        message = f"{path} extends this file, and a file that is extended extends no other; write its keys here"
        problems.append(Problem(further.line, _KEYS, message, str(place)))
    folder = os.path.relpath(place.parent, path.parent)
    if folder != os.curdir:
        _relocate(base, schema(), PurePath(folder))
    _fill(root, base)
    return problems


def base_of(path: Path) -> Path | None:
    """The file that a config extends. None if it extends none, or cannot be read."""
    try:
        root, _ = parsed(text_of(path))
    except NoText:
        return None
    named = root.below(EXTENDS)
    return path.parent / named.value if named and isinstance(named.value, str) else None


def _fill(entry: Entry, base: Entry) -> None:
    """Put into a section what it lacks and `base` has."""
    for key, inner in base.value.items():
        own = entry.value.get(key)
        if own is None:
            entry.value[key] = inner
        elif _is_merged(own) and _is_merged(inner):
            _fill(own, inner)


def _is_merged(entry: Entry) -> bool:
    return isinstance(entry.value, dict) and "kind" not in entry.value


def _relocate(entry: Entry, allowed: Schema, folder: PurePath) -> None:
    """Let every relative path in an entry start one folder away: in `folder`."""
    allowed = _of_its_kind(resolved(allowed), entry.value)
    if isinstance(entry.value, dict):
        for key, inner in entry.value.items():
            # A file in a Python package has its path inside of the package.
            if not (key == "file" and _in_a_package(entry)):
                _relocate(inner, schema_below(allowed, key), folder)
    elif isinstance(entry.value, list):
        for item in entry.value:
            _relocate(item, allowed.get("items", {}), folder)
    elif isinstance(entry.value, str) and allowed.get("format") == "path":
        entry.value = str(folder / entry.value)


def _of_its_kind(allowed: Schema, value: Any) -> Schema:
    """The section of the kind that a value names, where the schema has several."""
    choice = allowed.get("discriminator")
    kind = value.get(choice["propertyName"]) if choice and isinstance(value, dict) else None
    target = choice["mapping"].get(kind.value) if choice and kind and isinstance(kind.value, str) else None
    return dereferenced({"$ref": target}) if target else allowed


def _in_a_package(source: Entry) -> bool:
    package = source.below("package")
    return package is not None and package.value is not None
