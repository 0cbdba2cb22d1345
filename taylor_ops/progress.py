"""Progress of long work: the function that reports it, and one that ignores it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""A function that is called with the amount of work done and the total amount."""


def silent(_done: int, _total: int) -> None:
    """Ignore the progress."""
