"""Reads a YAML release config with its overrides, or reports everything that is wrong with it, with lines.

`read(path)` gives a `LoadedConfig` or raises `ConfigErrors`. `yaml_lines` judges the structure and `ReleaseConfig` the
values. Error messages take what is allowed from the JSON Schema of the model, so that limits stand in one place only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.explain import explained, shown
from taylor_ops.config_file.schema import Schema, allowed_values, schema, schema_below
from taylor_ops.config_file.yaml_lines import Entry, Problem, parsed, quoted
from taylor_ops.errors import BadInput
from taylor_ops.masking import masked, printable
from taylor_ops.storage.files import canonical_json

_MAX_BYTES = 1_000_000


class ConfigErrors(BadInput):
    """Everything that is wrong with a config. `lines` holds one `file:line: key.path: problem` for each error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines), "correct these; `taylor-release schema` lists every key and its limits")
        self.lines = [printable(masked(line)) for line in lines]
        self.args = (self.lines,)  # pickle makes an exception anew from its arguments

    def __str__(self) -> str:
        return self.cause


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config and the file that it was read from.

    Attributes:
        config: The validated config.
        document: The mapping of the file after overrides, with relative paths untouched.
        text: The file verbatim.
        path: Path of the file.
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
    """Read and validate the config at `path`.

    Args:
        path: Path of the YAML file.
        overrides: Values, as YAML text, that replace those of the file, by dotted key.

    Raises:
        ConfigErrors: With every error of the file and of the overrides, in the order of their lines.
    """
    text = _text_of(path)
    root, problems = parsed(text)
    if not isinstance(root.value, dict):
        if not root.broken:
            problems = [Problem(root.line, (), f"the file is {shown(root)}, must be {allowed_values(schema())}")]
        raise ConfigErrors([problem.worded(path) for problem in problems])

    for key, value in overrides.items():
        problems += _override(root, key, value)
    document = root.plain()
    try:
        # From JSON, pydantic is strict about types and still takes lists and paths as YAML has them.
        config = ReleaseConfig.model_validate_json(json.dumps(document), strict=True, context={"folder": path.parent})
    except ValidationError as error:
        problems += explained(error, root)
    if problems:
        in_order = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        raise ConfigErrors([problem.worded(path) for problem in in_order])
    return LoadedConfig(config, document, text, path)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigErrors([f"{path}: cannot be read: {error.strerror or error}"]) from error
    if len(data) > _MAX_BYTES:
        raise ConfigErrors([f"{path}: is larger than {_MAX_BYTES} bytes; this is no release config"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise ConfigErrors([f"{path}:{line}: is not UTF-8 text; save the file as UTF-8"]) from error


# Overrides -----------------------------------------------------------------------------------------------------------


def _override(root: Entry, key: str, text: str) -> list[Problem]:
    """Put a value at a dotted key, make the sections on the way, and return the problems."""
    keys = tuple(key.split("."))
    new, problems = parsed(text, keys, in_file=False)
    target, allowed = root, schema()
    for part in keys:
        allowed = schema_below(allowed, part)
        if isinstance(target.value, dict) and part not in target.value:
            target.value[part] = _implied(allowed)
        inner = target.below(part)
        if inner is None:
            if not target.broken:
                problems.append(Problem(None, keys, f"there is no {quoted(part)} here: {_reason(target)}"))
            return problems
        target = inner
    vars(target).update(vars(new))  # changed in place, because a section or a list may hold it
    return problems


def _implied(allowed: Schema) -> Entry:
    """The entry that an override descends into if the file has none: the default list, or an empty section."""
    default = allowed.get("default")
    entry, _ = parsed(json.dumps(default if isinstance(default, list) else {}), in_file=False)
    return entry


def _reason(target: Entry) -> str:
    if isinstance(target.value, list):
        return f"this is a list of {len(target.value)}, counted from 0"
    return f"this is {shown(target)}, not a section"
