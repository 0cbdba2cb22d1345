"""Pairs of times that other programs disturbed are timed again: what a processor gives to them it gives unevenly.

A core that somebody else keeps busy slows the original and the bundle by different factors, and steadily so: no number
of pairs would show it. Linux counts how long each thread was ready to run and had to wait. What counts is the thread
that waited longest; of many threads that wait a little, at different times, a step waits for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from taylor_ops.errors import WorkFailed

# So many more pairs disturbed than not, and so many seconds of them: what a machine does now and then is sat out.
_TOO_MANY = 15
_TOO_LONG = 60.0


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
        self._pair, self._most, self._taken, self._lost = pair, most, 0, 0.0

    def __call__(self) -> tuple[float, float]:
        # A wait that began before the pair is counted in it: of a short one it may be more than all.
        if self._most >= 1:
            return self._pair()
        while True:
            before, start = waited(), time.monotonic()
            seconds = self._pair()
            lasted = time.monotonic() - start
            longest = max((now - before.get(thread, 0.0) for thread, now in waited().items()), default=0.0)
            if longest <= self._most * lasted:
                self._taken += 1
                return seconds
            self.disturbed += 1
            self._lost += lasted
            if self.disturbed - self._taken > _TOO_MANY and self._lost > _TOO_LONG:
                raise WorkFailed(
                    "the machine is too noisy to time a slowdown: this process waited for a processor in "
                    f"{self.disturbed} of {self.disturbed + self._taken} pairs, in the last for {longest / lasted:.0%} "
                    "of the time",
                    "end what else runs on this machine; in a container with a quota, or beside programs that stay, "
                    "give torch no more threads than there are cores for it (OMP_NUM_THREADS); then run again. A "
                    "config may set `latency.disturbance`, the share that is too much",
                )
