"""Errors written for the person who sees them: one line of cause, one of remedy, and the exit status they end with."""

from __future__ import annotations


class ReleaseError(Exception):
    """Something that stops a release and that a person can act on.

    `cause` says what is wrong and where; `remedy` says what to do. `exit_status` is that of the command line.
    """

    exit_status = 1

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}"


class BadInput(ReleaseError):
    """A config, a source or a command that cannot be worked with, found before any work is done."""

    exit_status = 2


class GateRejected(ReleaseError):
    """A gate saw that the release does not keep a promise: it is not published."""


class WorkFailed(ReleaseError):
    """The work itself could not be finished: a full disk, a lost file, a process that died."""
