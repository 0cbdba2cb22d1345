"""What a run has in place of what its file says: put into the config, judged by which direction is tighter, and told.

Overrides are arguments `--set KEY=VALUE`, or a YAML text with the same keys, nested or dotted. A section gets the keys
that it is given. Every other value is replaced as a whole, and so is a source that names its `kind`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from taylor_ops.config.tighter import TIGHTER, at_least_as_tight
from taylor_ops.config_file.explain import shown
from taylor_ops.config_file.schema import EXTENDS, Schema, schema, schema_below
from taylor_ops.config_file.yaml_lines import MORE, SET, Entry, Problem, parsed, quoted

Overridden = dict[str, dict[str, Any]]
"""By dotted key, what the file says (`file`, the default if it says nothing) and what the run has (`run`)."""

_LETTERS = 80


def put_settings(root: Entry, settings: Mapping[str, str]) -> list[Problem]:
    """Put values, as YAML texts, at dotted keys. Makes the sections on the way, and returns the problems."""
    problems: list[Problem] = []
    for key, text in settings.items():
        keys = tuple(key.split("."))
        new, found = parsed(text, keys, SET)
        problems += [*found, *_put(root, keys, new)]
    return problems


def put_more(root: Entry, text: str) -> list[Problem]:
    """Put the keys of a YAML text into the config, and return the problems. An empty text has none."""
    new, problems = parsed(text, source=MORE)
    if isinstance(new.value, dict):
        for key, value in new.value.items():
            problems += _put(root, tuple(key.split(".")), value)
    elif new.value is not None:
        message = f"is {shown(new)}, must be keys of the config with their values, such as `seed: 3`"
        problems.append(Problem(new.line, (), message, MORE))
    return problems


def _put(root: Entry, keys: tuple[str, ...], new: Entry) -> list[Problem]:
    """Put an entry at the place of `keys`. The entries on the way are made if they are missing."""
    if keys[0] == EXTENDS:
        return [Problem(new.line, keys, "belongs into the file; give the keys that are to change instead", new.source)]
    target, allowed = root, schema()
    *way, last = keys
    for part in way:
        allowed = schema_below(allowed, part)
        if isinstance(target.value, dict) and part not in target.value:
            target.value[part] = _implied(allowed, new)
        inner = target.below(part)
        if inner is None:
            return _no_place(target, part, keys, new)
        target = inner
    if isinstance(target.value, dict) and last not in target.value:
        target.value[last] = new
        return []
    inner = target.below(last)
    if inner is None:
        return _no_place(target, last, keys, new)
    # An item of a list is no section of the config: it may be of another kind than the one that it replaces.
    put = _replaced if isinstance(target.value, list) else _merged
    return put(inner, keys, new)


def _merged(target: Entry, keys: tuple[str, ...], new: Entry) -> list[Problem]:
    """Put the keys of a section into a section. Everything else is replaced."""
    if not (isinstance(target.value, dict) and isinstance(new.value, dict)) or "kind" in new.value:
        return _replaced(target, keys, new)
    problems: list[Problem] = []
    for key, value in new.value.items():
        if key in target.value:
            problems += _merged(target.value[key], (*keys, key), value)
        else:
            target.value[key] = value
    return problems


def _replaced(target: Entry, keys: tuple[str, ...], new: Entry) -> list[Problem]:
    """Make an entry another one. It stays the same object, because a section or a list holds it."""
    if target.source == MORE:
        twice = f"is given twice, by line {target.line} of `more` too; keep one of them"
        return [Problem(new.line, keys, twice, new.source)]
    vars(target).update(vars(new))
    return []


def _implied(allowed: Schema, new: Entry) -> Entry:
    """The entry on the way to a new one if the file has none: the default list, or an empty section."""
    default = allowed.get("default")
    entry, _ = parsed(json.dumps(default if isinstance(default, list) else {}), source=SET)
    entry.line, entry.source = new.line, new.source
    return entry


def _no_place(target: Entry, part: str, keys: tuple[str, ...], new: Entry) -> list[Problem]:
    if target.broken:
        return []
    if isinstance(target.value, list):
        reason = f"this is a list of {len(target.value)}, counted from 0"
    else:
        reason = f"this is {shown(target)}, not a section"
    return [Problem(new.line, keys, f"there is no {quoted(part)} here: {reason}", new.source)]


# What was overridden --------------------------------------------------------------------------------------------------


def loosened(root: Entry, file: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[Problem]:
    """The keys that a run has looser than its file says, without leave of the file.

    Args:
        root: The entries of the run, which say where its values stand.
        file: The document of the file alone.
        run: The document of the run, which is valid.
    """
    allowed = value_at(run, "overridable")
    if value_at(file, "overridable") != allowed:
        yield _refused(root, "overridable", "is what the file alone can say; change it there")
        return
    for key, direction in TIGHTER.items():
        before, after = value_at(file, key), value_at(run, key)
        if before != after and key not in allowed and not at_least_as_tight(key, before, after):
            yield _refused(
                root,
                key,
                f"is {_json(after)}, the file has {_json(before)}, and an override may only tighten it (tighter is "
                f"{direction.tighter}); change the file, or list `{key}` under `overridable` in it",
            )


def overridden(file: Mapping[str, Any], run: Mapping[str, Any]) -> Overridden:
    """What a run has in place of what its file says, by dotted keys in their order. A list counts as one value."""
    found: Overridden = {}
    for key in sorted({*_leaves(file), *_leaves(run)}):
        before, after = value_at(file, key), value_at(run, key)
        if before != after and not isinstance(before, dict) and not isinstance(after, dict):
            found[key] = {"file": before, "run": after}
    return found


def value_at(document: Any, key: str) -> Any:
    """The value at a dotted key of sections; its default if there is none, and None if it has no default either."""
    allowed, missing = schema(), False
    for part in key.split("."):
        allowed = schema_below(allowed, part)
        missing = missing or not isinstance(document, dict) or part not in document
        document = None if missing else document[part]
    return allowed.get("default") if missing else document


def _leaves(document: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _refused(root: Entry, key: str, message: str) -> Problem:
    """A problem at the entry of a key, or at the nearest one above it; at what an override put into it, if it did."""
    at, keys = root, tuple(key.split("."))
    for part in keys:
        below = at.below(part)
        if below is None:
            break
        at = below
    at = next((one for one in _within(at) if one.source in (SET, MORE)), at)
    return Problem(at.line, keys, message, at.source)


def _within(entry: Entry) -> Iterator[Entry]:
    """An entry and all below it."""
    yield entry
    below = entry.value.values() if isinstance(entry.value, dict) else entry.value
    if isinstance(entry.value, (dict, list)):
        for one in below:
            yield from _within(one)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."
