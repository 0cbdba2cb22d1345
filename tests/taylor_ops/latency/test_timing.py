"""Pairs that other programs disturbed are timed again, and a machine on which most are is refused."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from taylor_ops.errors import WorkFailed
from taylor_ops.latency import timing
from taylor_ops.latency.timing import Undisturbed, waited


class Machine:
    """Numbered pairs, in each of which one of two threads waits for the next of the given shares."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shares: list[float], lasts: float = 10.0) -> None:
        self.shares, self._lasts, self._now, self._waits, self._pairs = shares, lasts, 0.0, 0.0, 0
        monkeypatch.setattr(timing.time, "monotonic", lambda: self._now)
        monkeypatch.setattr(timing, "waited", lambda: {"one": 0.0, "two": self._waits})

    def pair(self) -> tuple[float, float]:
        self._now += self._lasts
        self._waits += self._lasts * self.shares.pop(0)
        self._pairs += 1
        return 1.0, float(self._pairs)


def test_a_pair_in_which_a_thread_waits_too_long_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [0.0, 0.049, 0.051, 0.6, 0.0])
    sample = Undisturbed(machine.pair, 0.05)
    assert [sample() for _ in range(3)] == [(1.0, 1.0), (1.0, 2.0), (1.0, 5.0)]
    assert sample.disturbed == 2


@pytest.mark.parametrize(("lasts", "pairs"), [(10.0, 16), (1.0, 31)])
def test_a_machine_on_which_most_pairs_are_disturbed_for_long_is_too_noisy(
    monkeypatch: pytest.MonkeyPatch, lasts: float, pairs: int
) -> None:
    machine = Machine(monkeypatch, pairs * [0.5], lasts)
    sample = Undisturbed(machine.pair, 0.05)
    with pytest.raises(WorkFailed, match=f"waited for a processor in {pairs} of {pairs} pairs, .* for 50%") as no:
        sample()
    assert "`latency.disturbance`" in no.value.remedy
    assert machine.shares == []


def test_every_other_pair_may_be_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 200 * [0.5, 0.0])
    sample = Undisturbed(machine.pair, 0.05)
    assert [second for _, second in (sample() for _ in range(200))] == [float(2 * number + 2) for number in range(200)]
    assert sample.disturbed == 200


def test_a_limit_of_all_of_the_time_lets_every_pair_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 50 * [1.2])
    sample = Undisturbed(machine.pair, 1.0)
    assert len([sample() for _ in range(50)]) == 50
    assert sample.disturbed == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread waited")
def test_every_thread_of_this_process_tells_how_long_it_waited() -> None:
    before = waited()
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        during = waited()
        assert before.keys() < during.keys()
        assert str(thread.native_id) in during
        assert all(during[name] >= seconds for name, seconds in before.items())
    finally:
        go.set()
        thread.join()


BESIDE_ANOTHER = """
import os, signal, time
from taylor_ops.latency.timing import waited

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
other = os.fork()
while other == 0:
    pass
before, end = sum(waited().values()), time.process_time() + 0.3
while time.process_time() < end:
    pass
print(sum(waited().values()) - before)
os.kill(other, signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread waited")
def test_a_process_that_shares_its_core_with_another_waits_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE_ANOTHER], capture_output=True, text=True, check=True)
    # As long as it computes, where both get the same.
    assert float(done.stdout) > 0.05
