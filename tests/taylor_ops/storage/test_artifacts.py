"""The layout of the artifacts folder, and its locks: who is refused, who waits, and what a killed process leaves."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import Timeout

from taylor_ops.errors import WorkFailed
from taylor_ops.storage.artifacts import Artifacts, one_publisher

PROCESSES = get_context("spawn")


def test_the_names_in_the_folder_are_those_that_earlier_runs_have_left(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    place, version = artifacts.release("tiny"), artifacts.release("tiny").version("1.0.0")
    found = [
        artifacts.publication("org/tiny", "1.0.0"),
        place.stage("capture"),
        place.memory("capture"),
        place.waiting_note("a-run"),
        version.bundle,
        version.record,
        version.report,
        version.published_note,
        version.measurements("latency"),
    ]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "hub/org/tiny/1.0.0",
        "tiny/stages/capture",
        "tiny/stages/capture.json",
        "tiny/stages/approve-a-run.waiting",
        "tiny/1.0.0/bundle",
        "tiny/1.0.0/release.json",
        "tiny/1.0.0/report.html",
        "tiny/1.0.0/published.json",
        "tiny/1.0.0/measurements/latency.json",
    ]


def test_a_second_holder_is_refused_at_once_and_let_in_when_the_first_is_done(tmp_path: Path) -> None:
    place = Artifacts(tmp_path).release("tiny")
    with place.lock():
        with pytest.raises(WorkFailed) as caught, place.lock():
            pytest.fail("two held the lock")
        assert caught.value.cause == f"another run of tiny is at work in {tmp_path / 'tiny'}"
        assert "another --artifacts folder" in caught.value.remedy
    with place.lock():
        assert (tmp_path / "tiny" / ".lock").is_file()


def test_another_lock_that_the_work_waits_for_in_vain_is_not_told_as_another_run(tmp_path: Path) -> None:
    with pytest.raises(Timeout), Artifacts(tmp_path).release("tiny").lock():
        raise Timeout("a lock of a cache")


def hold(root: Path, held: Event) -> None:
    """Hold both locks until this process is killed."""
    artifacts = Artifacts(root)
    with artifacts.release("tiny").lock(), one_publisher(artifacts.publication("org/tiny", "1.0.0")):
        held.set()
        signal.pause()


def test_the_locks_of_a_killed_process_do_not_stay(tmp_path: Path) -> None:
    held = PROCESSES.Event()
    holder = PROCESSES.Process(target=hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(timeout=600)
    artifacts = Artifacts(tmp_path)
    with pytest.raises(WorkFailed), artifacts.release("tiny").lock():
        pytest.fail("two held the lock")
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with artifacts.release("tiny").lock(), one_publisher(artifacts.publication("org/tiny", "1.0.0")):
        assert (tmp_path / "hub" / "org" / "tiny" / ".1.0.0.lock").is_file()
