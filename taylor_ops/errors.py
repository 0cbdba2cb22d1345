"""Errors written for the person who sees them, each with a line of cause, a line of remedy, and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taylor_ops.masking import masked, printable


class ReleaseError(Exception):
    """An error that stops a release and that a person can act on. What it says holds no secret of this process.

    Attributes:
        cause: What is wrong, and where.
        remedy: What to do.
        exit_status: Exit status of the command line.
    """

    exit_status = 1

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause, self.remedy = (printable(masked(text)) for text in (cause, remedy))
        super().__init__(self.cause, self.remedy)

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}"


class BadInput(ReleaseError):
    """A config, a source or a command is unusable. This is found before any work is done."""

    exit_status = 2


class GateRejected(ReleaseError):
    """A gate found that the release breaks a promise. The release is not published."""


class WorkFailed(ReleaseError):
    """The work could not be finished, for instance because of a full disk, a lost file or a process that died."""


@contextmanager
def told_as(place: Path, name: str) -> Iterator[None]:
    """Have errors call a temporary folder by the name of what it holds, which a person knows."""
    try:
        yield
    except ReleaseError as error:
        error.cause, error.remedy = (text.replace(str(place), name) for text in (error.cause, error.remedy))
        error.args = (error.cause, error.remedy)
        raise
