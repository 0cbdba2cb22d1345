"""Which files of a source a release reads."""

from __future__ import annotations

import shutil
from pathlib import Path

from taylor_ops.model.weight_files import inside, weight_files
from taylor_ops.source.roles import copied_files, fetched_patterns, role_of

WANTED = fetched_patterns()


def is_read(name: str) -> bool:
    """Whether a release reads the file of this name in a model folder."""
    return role_of(name) is not None


def files_read(place: Path) -> list[str]:
    """The files of a model folder that a release reads, relative to it, sorted: those it copies, and the weights.

    Raises `BadInput` if the weights cannot be told, or if a file is a link that leaves the folder.
    """
    top = {path.name for path in place.iterdir() if path.is_file()}
    beside = {name for name in top if role_of(name) not in (None, "weights")} | {*copied_files(place)}
    for name in sorted(beside):
        inside(place, name)
    return sorted([*beside, *weight_files(place).read()])


def first_line(error: Exception) -> str:
    """The first line of an error that is not empty, or else the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def copy_along(place: Path, target: Path) -> None:
    """Copy every file of a model folder with a role but config and weights, byte for byte."""
    for name in copied_files(place):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place / name, target / name)
