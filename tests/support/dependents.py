"""Programs that tests and benchmarks start, which do not outlive them, and with each all that it has started."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import psutil

from tests.support.documented import ROOT

_WATCH = """
import os, select, sys
import psutil
from tests.support.dependents import kill
try:
    watched = psutil.Process(int(sys.argv[1]))
    ends = [os.pidfd_open(watched.pid)] if hasattr(os, "pidfd_open") else []
except (psutil.NoSuchProcess, ProcessLookupError):
    sys.exit()
if sys.stdin in select.select([sys.stdin, *ends], [], [])[0]:
    kill(watched)
"""


def end_with_this_process(process: subprocess.Popen[Any]) -> None:
    """Have a program end when this process ends, also if a kill ends it at once."""
    # The pipe closes with this process. The watch ends when the program does, and is in no group that Ctrl-C reaches.
    watch = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(process.pid)], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
    )
    _watching.append(watch)


def end(process: subprocess.Popen[Any]) -> None:
    """`kill -9` of a program with all that it has started."""
    if process.poll() is None:
        kill(psutil.Process(process.pid))
    process.wait()


def kill(process: psutil.Process) -> None:
    """`kill -9` of a process with all that it has started."""
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


_watching: list[subprocess.Popen[bytes]] = []
