"""Reads a YAML release config with its overrides, or reports everything that is wrong with it, with lines.

`read(path)` gives a `LoadedConfig` or raises `ConfigErrors`. `yaml_lines` judges the structure and `ReleaseConfig` the
values. Error messages take what is allowed from the JSON Schema of the model, so that limits stand in one place only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.explain import explained, shown
from taylor_ops.config_file.extends import extended
from taylor_ops.config_file.file_text import NoText, text_of
from taylor_ops.config_file.overrides import Overridden, loosened, overridden, put_more, put_settings
from taylor_ops.config_file.schema import allowed_values, schema
from taylor_ops.config_file.yaml_lines import MORE, SET, Entry, Problem, parsed
from taylor_ops.errors import BadInput
from taylor_ops.masking import masked, printable
from taylor_ops.storage.files import canonical_json


class ConfigErrors(BadInput):
    """Everything that is wrong with a config.

    Attributes:
        problems: The same mistakes, if they are of one config.
        lines: One `file:line: key.path: problem` for each mistake.
    """

    def __init__(self, lines: list[str], problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(lines), "correct these; `taylor-release schema` lists every key and its limits")
        self.lines = [printable(masked(line)) for line in lines]
        self.problems = tuple(_without_secrets(problem) for problem in problems)
        self.args = (self.lines, self.problems)  # pickle makes an exception anew from its arguments

    def __str__(self) -> str:
        return self.cause


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config and the file that it was read from.

    Attributes:
        config: The validated config.
        document: The mapping of the file, of the one that it extends and of the overrides, as if the file said it all.
            Relative paths start at the folder of the file.
        text: The file verbatim.
        path: Path of the file.
        root: The entries of the document, with their lines.
        overridden: What the document has in place of what the file says.
    """

    config: ReleaseConfig
    document: dict[str, Any]
    text: str
    path: Path
    root: Entry
    overridden: Overridden = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the document: equal for configs that say the same, however and in how many files they say it."""
        return hashlib.sha256(canonical_json(self.document).encode()).hexdigest()

    @property
    def redirected(self) -> bool:
        """Whether the run publishes at another place than its file says, which does not let it decide who sees that."""
        moved = not self.overridden.keys().isdisjoint({"publish.target", "publish.repo_id"})
        return moved and "publish.private" not in self.config.overridable


def read(path: Path, overrides: Mapping[str, str] = {}, more: str = "") -> LoadedConfig:
    """Read and validate the config at `path`.

    Args:
        path: Path of the YAML file.
        overrides: Values, as YAML text, that replace those of the file, by dotted key.
        more: Further keys that replace those of the file, as one YAML text.

    Raises:
        ConfigErrors: With every error of the file and of the overrides, in the order of their lines; if there are none,
            with every key that an override loosens without leave of the file.
    """
    try:
        text = text_of(path)
    except NoText as error:
        raise _errors_of(path, [Problem(error.line, (), str(error))]) from error
    root, problems = parsed(text)
    if not isinstance(root.value, dict):
        if not root.broken:
            problems = [Problem(root.line, (), f"the file is {shown(root)}, must be {allowed_values(schema())}")]
        raise _errors_of(path, problems)

    problems += extended(root, path)
    file = root.plain()
    problems += [*put_more(root, more), *put_settings(root, overrides)]
    document = root.plain()
    try:
        # From JSON, pydantic is strict about types and still takes lists and paths as YAML has them.
        config = ReleaseConfig.model_validate_json(json.dumps(document), strict=True, context={"folder": path.parent})
    except ValidationError as error:
        problems += explained(error, root)
    problems = problems or list(loosened(root, file, document))
    if problems:
        raise _errors_of(path, sorted(problems, key=_order))
    return LoadedConfig(config, document, text, path, root, overridden(file, document))


def _errors_of(path: Path, problems: Sequence[Problem]) -> ConfigErrors:
    return ConfigErrors([problem.worded(path) for problem in problems], problems)


def _without_secrets(problem: Problem) -> Problem:
    return replace(problem, keys=tuple(map(masked, problem.keys)), message=masked(problem.message))


def _order(problem: Problem) -> tuple[bool, str, int]:
    """The lines of the config, then those of the file that it extends, then overrides."""
    return problem.source in (SET, MORE), problem.source, problem.line or 0
