"""The lock of a release's folder: two runs of one release in one place would undo each other's work."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taylor_ops.errors import WorkFailed
from taylor_ops.storage.files import disk_errors_explained


@contextmanager
def alone_in(place: Path) -> Iterator[None]:
    """Hold the lock of `place`, the folder of one release; raises `WorkFailed` where a run is at work in it."""
    with disk_errors_explained(place):
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkFailed(
                f"another run of {place.name} is at work in {place}",
                "wait for it to end, or give this run another --artifacts folder",
            ) from None
        yield
