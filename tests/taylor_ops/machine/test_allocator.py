"""A process that was started with a limit for freed memory, as Dask starts workers, keeps it all the same."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from taylor_ops.machine import allocator

PROGRAM = """
import resource
import torch
from taylor_ops.machine.allocator import keep_freed_memory

{first}
for _ in range(10):
    torch.zeros(1 << 18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    torch.zeros(1 << 18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str, **environment: str) -> int:
    """How many pages a process fetches for 200 buffers of 1 MB, one after the other."""
    program = PROGRAM.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="limits of the GNU C library")
def test_buffers_are_used_again_under_the_limit_that_dask_sets() -> None:
    as_dask = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    pages = 200 * (1 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert faults("", **as_dask) > pages / 2
    assert faults("keep_freed_memory()", **as_dask) < pages / 20


def test_a_process_without_a_limit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _name: pytest.fail("the C library was asked"))
    allocator.keep_freed_memory()
