"""Make a process keep the memory that it frees for its next step, whatever started the process."""

from __future__ import annotations

import ctypes
import os

# Parameters from malloc.h of the GNU C library, with the values that the library itself reaches in a process that frees
# large buffers.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 64 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20


def keep_freed_memory() -> None:
    """Stop this process from returning freed memory to the kernel at once, if it was started with such a limit.

    Dask starts its workers with one. The C library then no longer adjusts its limits, and it fetches every buffer anew
    from the kernel, page by page. Nothing changes under another C library.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
