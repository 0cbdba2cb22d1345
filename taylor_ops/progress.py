"""Progress of long work: the function that reports it, one that ignores it, and those for parts of the work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""A function that is called with the amount of work done and the total amount."""


def silent(_done: int, _total: int) -> None:
    """Ignore the progress."""


class Done:
    """Counts the work that is done, for a `Progress` that is told the sum."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._progress(self._done, self._total)


def part_of(progress: Progress, before: int, share: int, total: int) -> Progress:
    """The progress of a part of the work, which reports to the progress of the whole.

    Args:
        progress: The progress of the whole, of `total`.
        before: What is done of the whole before the part begins.
        share: What the part is of the whole.
        total: The whole.
    """
    return lambda done, of: progress(before + share * done // max(of, 1), total)
