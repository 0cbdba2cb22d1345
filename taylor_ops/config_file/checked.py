"""What the command `check` says of one config: its mistakes, and what it names that is not on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource, GgufSource
from taylor_ops.config_file.read import ConfigErrors, LoadedConfig, read
from taylor_ops.config_file.yaml_lines import Problem
from taylor_ops.masking import masked, printable
from taylor_ops.storage.record import Record


class Mistake(Record):
    """One thing that is wrong, or missing.

    Attributes:
        file: The file in which it stands: the config, or the file that it extends.
        line: Its line there. None if it is about the file as a whole.
        key: The key with dots between its parts. Empty if it is about the file as a whole.
        message: What is wrong, and what to write instead.
    """

    file: str
    line: int | None
    key: str
    message: str

    @property
    def worded(self) -> str:
        """The mistake in one line."""
        line, key = ("" if self.line is None else f"{self.line}:"), (f" {self.key}:" if self.key else "")
        return f"{self.file}:{line}{key} {self.message}"


class CheckedConfig(Record):
    """What `check` says of one config.

    Attributes:
        path: Path of the config, as it was given.
        name: Name of the release. None if the config has mistakes.
        version: Its version. None if the config has mistakes.
        sha256: Hash of what the config says, with the file that it extends, as runs name it. None with mistakes.
        mistakes: Everything that is wrong. A config with mistakes releases nothing.
        missing: Paths that the config names and that are not on this machine. They are no mistakes, because the release
            may run on another machine.
    """

    path: str
    name: str | None = None
    version: str | None = None
    sha256: str | None = None
    mistakes: tuple[Mistake, ...] = ()
    missing: tuple[Mistake, ...] = ()


def checked(path: Path) -> CheckedConfig:
    """Read a config, and look for the paths that it names."""
    try:
        loaded = read(path)
    except ConfigErrors as error:
        return CheckedConfig(
            path=path.as_posix(), mistakes=tuple(_mistake(problem, path) for problem in error.problems)
        )
    return CheckedConfig(
        path=path.as_posix(),
        name=loaded.config.name,
        version=loaded.config.version,
        sha256=loaded.sha256,
        missing=tuple(_mistake(problem, path) for problem in _missing(loaded)),
    )


def _mistake(problem: Problem, path: Path) -> Mistake:
    file = printable(masked(Path(problem.source or path).as_posix()))
    return Mistake(file=file, line=problem.line, key=printable(problem.key), message=printable(masked(problem.message)))


def _missing(loaded: LoadedConfig) -> Iterator[Problem]:
    for keys, message in _not_here(loaded.config):
        entry = loaded.root
        for key in keys:
            entry = entry.below(key) or entry
        yield Problem(entry.line, keys, f"{message} on this machine", entry.source)


def _not_here(config: ReleaseConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys of sources, texts and tasks that name something that is not here, each with what that is."""
    source = config.source
    if isinstance(source, FolderSource) and not source.path.is_dir():
        yield ("source", "path"), f"there is no folder {source.path}"
    if isinstance(source, GgufSource):
        if source.package is None and not source.file.is_file():
            yield ("source", "file"), f"there is no file {source.file}"
        if source.package is not None and importlib.util.find_spec(source.package) is None:
            yield ("source", "package"), f"there is no Python package {source.package}"
    for section, texts in (
        (("calibration", "texts"), config.calibration.texts),
        (("exactness", "prompts"), config.exactness.prompts),
        (("exactness", "running_text"), config.exactness.running_text),
    ):
        for index, text in enumerate(texts):
            place = (*section, str(index))
            if text.file is not None and not text.file.is_file():
                yield (*place, "file"), f"there is no file {text.file}"
            folder = text.dataset.folder if text.dataset else None
            if folder is not None and not folder.is_dir():
                yield (*place, "dataset", "folder"), f"there is no folder {folder}"
    for index, task in enumerate(config.exactness.tasks):
        if task.file is not None and not task.file.is_file():
            yield ("exactness", "tasks", str(index), "file"), f"there is no file {task.file}"
