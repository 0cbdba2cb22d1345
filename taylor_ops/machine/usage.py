"""What a piece of work costs this process: wall-clock seconds and peak resident memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_SAMPLE_SECONDS = 0.02


@dataclass
class Usage:
    """What the measured block took, filled in when it ends.

    Attributes:
        seconds: Wall-clock seconds.
        peak_rss_bytes: Peak resident memory, with child processes.
    """

    seconds: float = 0.0
    peak_rss_bytes: int = 0


@contextmanager
def measured() -> Iterator[Usage]:
    """Measure the block. The peak is sampled 50 times a second, so a spike shorter than that can be missed."""
    cost, over = Usage(), threading.Event()
    process = psutil.Process()

    def watch() -> None:
        while True:
            cost.peak_rss_bytes = max(cost.peak_rss_bytes, _resident(process))
            if over.wait(_SAMPLE_SECONDS):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    start = time.monotonic()
    watcher.start()
    try:
        yield cost
    finally:
        over.set()
        watcher.join()
        cost.seconds = time.monotonic() - start


def _resident(process: psutil.Process) -> int:
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        try:
            total += int(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return total
