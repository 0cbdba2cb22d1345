"""Have a process keep memory that it frees for its next step, whoever started it."""

from __future__ import annotations

import ctypes
import os

# Of malloc.h of the GNU C library, with the values that it arrives at by itself for a process that frees large buffers.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 64 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20


def keep_freed_memory() -> None:
    """Undo that freed memory goes back to the kernel at once, where this process was started with such a limit.

    Dask starts its workers so. The C library then no longer adjusts its limits, every buffer is fetched anew from the
    kernel, page by page. Nothing is changed under another C library.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
