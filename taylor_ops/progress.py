"""Progress of long work: the function that reports it, one that ignores it, and a count for it."""

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

    def within(self, share: int) -> Progress:
        """A progress for a part of the work that counts as `share` of the total, whatever it turns out to be."""
        before = self._done

        def part(done: int, total: int) -> None:
            self._done = before + share * done // max(total, 1)
            self._progress(self._done, self._total)

        return part
