"""What a block of work costs: the peak holds its own memory and that of its child processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch

from taylor_ops.machine.usage import Usage, measured

SIZE = 192 << 20
# Pages that were handed back to the system while the block ran lower what is seen.
SLACK = 16 << 20
PATIENCE_SECONDS = 20


def hold_until(seen: Callable[[], bool]) -> None:
    """Keep the processor busy until the sampler has looked; give up only where it never will."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not seen() and time.monotonic() < end:
        pass


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def test_the_peak_rises_by_a_tensor_that_the_block_holds() -> None:
    before = resident()
    with measured() as cost:
        tensor = torch.ones(SIZE // 4)
        hold_until(lambda: cost.peak_rss_bytes >= before + SIZE - SLACK)
    assert cost.peak_rss_bytes >= before + SIZE - SLACK
    assert tensor.numel() == SIZE // 4


def test_the_peak_stays_when_the_memory_is_let_go_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    look = psutil.Process.memory_info

    def counted(process: psutil.Process) -> Any:
        looks.append(process)
        return look(process)

    before = resident()
    monkeypatch.setattr(psutil.Process, "memory_info", counted)
    with measured() as cost:
        tensor = torch.ones(SIZE // 4)
        hold_until(lambda: cost.peak_rss_bytes >= before + SIZE - SLACK)
        del tensor
        assert resident() < before + SIZE // 2
        seen = len(looks)
        hold_until(lambda: len(looks) > seen + 1)
    assert cost.peak_rss_bytes >= before + SIZE - SLACK


def test_the_memory_of_a_child_process_counts() -> None:
    before = resident()
    program = f"memory = bytearray(b'x') * {SIZE}; print('ready', flush=True); input()"
    with (
        measured() as cost,
        subprocess.Popen(
            [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        hold_until(lambda: cost.peak_rss_bytes >= before + SIZE - SLACK)
        child.communicate("done\n")
    assert cost.peak_rss_bytes >= before + SIZE - SLACK


def test_a_block_that_does_nothing_still_has_a_cost() -> None:
    with measured() as cost:
        assert cost.seconds == 0.0
    assert cost.seconds > 0
    assert cost.peak_rss_bytes > 0


def fail_inside(costs: list[Usage]) -> None:
    with measured() as cost:
        costs.append(cost)
        raise ValueError("no")


def test_a_block_that_fails_is_measured_and_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    costs: list[Usage] = []
    with pytest.raises(ValueError, match="no"):
        fail_inside(costs)
    assert costs[0].seconds > 0
    assert costs[0].peak_rss_bytes > 0
    assert set(threading.enumerate()) == before
