"""Pairs of times that other programs disturbed are timed again: what a processor gives to them it gives unevenly.

A core that somebody else keeps busy slows the original and the bundle by different factors, and steadily so: no number
of pairs would show it. Linux counts how long each thread was ready to run and had to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from taylor_ops.errors import WorkFailed

# So many more pairs disturbed than not: minutes of it.
_TOO_MANY = 15


def waited() -> dict[str, float]:
    """Seconds that each thread of this process was ready and waited for a processor; empty where nothing tells."""
    seconds = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            seconds[thread.parent.name] = int(thread.read_text(encoding="ascii").split()[1]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            # A thread that has ended meanwhile.
            continue
    return seconds


class Undisturbed:
    """Times pairs until one is undisturbed: none of its threads waited for more than a share of the time, `most`.

    disturbed: how many pairs were timed again. Raises `WorkFailed` where most of them are.
    """

    def __init__(self, pair: Callable[[], tuple[float, float]], most: float) -> None:
        self.disturbed = 0
        self._pair, self._most, self._taken = pair, most, 0

    def __call__(self) -> tuple[float, float]:
        while True:
            before, start = waited(), time.monotonic()
            seconds = self._pair()
            lasted = time.monotonic() - start
            longest = max((now - before.get(thread, 0.0) for thread, now in waited().items()), default=0.0)
            if longest <= self._most * lasted:
                self._taken += 1
                return seconds
            self.disturbed += 1
            if self.disturbed - self._taken > _TOO_MANY:
                raise WorkFailed(
                    "the machine is too noisy to time a slowdown: other programs had the processor in "
                    f"{self.disturbed} of {self.disturbed + self._taken} pairs, in the last for {longest / lasted:.0%} "
                    "of the time",
                    "end what else runs on this machine, or give torch fewer threads than there are cores "
                    "(OMP_NUM_THREADS), then run again; `latency.disturbance` says how much is too much",
                )
