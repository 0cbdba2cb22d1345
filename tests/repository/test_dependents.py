"""What tests and benchmarks start ends with them."""

from __future__ import annotations

import subprocess
import sys

import psutil

from tests.support.documented import ROOT

STARTS = """
import subprocess, sys
from tests.support.dependents import end_with_this_process
command = ["bash", "-c", "sleep infinity & echo $!; wait"]
started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
end_with_this_process(started)
print(started.pid, started.stdout.readline().strip(), flush=True)
sys.stdin.read()
"""


def test_a_program_ends_with_the_killed_one_that_started_it_and_takes_along_what_it_started() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    started = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
    assert len(started) == 2
    starter.kill()
    starter.wait()
    assert psutil.wait_procs(started, timeout=60)[1] == []
