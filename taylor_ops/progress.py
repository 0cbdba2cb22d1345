"""Progress of long work: how it is told, and a listener that ignores it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


def silent(_done: int, _total: int) -> None:
    """Progress that nobody listens to."""
