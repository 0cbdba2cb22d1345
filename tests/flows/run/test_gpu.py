"""The slot of a GPU: one holder at a time, for the work alone, and none for what computes elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from prefect import flow, get_client

from flows.run import gpu, release_run
from flows.run.release_run import ReleaseRun, open_release
from taylor_ops import progress
from taylor_ops.capture.capture import capture
from taylor_ops.errors import WorkFailed
from taylor_ops.stages import Stage
from taylor_ops.storage.record import Record

pytestmark = pytest.mark.usefixtures("prefect_server")
CUDA = torch.device("cuda")


class Done(Record):
    """The record of a stage that only counts."""

    holders: int


@pytest.fixture
def one_gpu() -> Iterator[None]:
    """The limit `gpu` of one slot, which `deploy` in another test on this server may have made."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(gpu.LIMIT, 1)
        yield
        client.delete_global_concurrency_limit_by_name(gpu.LIMIT)


def held() -> int:
    """How many slots the server knows to be held."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(gpu.LIMIT).active_slots


@flow
def stage_of(release: ReleaseRun, work: release_run.Work[Done], device: torch.device) -> Done:
    return release.perform(Stage("capture", capture, Done), {}, work, device=device)


@pytest.mark.usefixtures("one_gpu")
def test_of_three_releases_at_once_never_two_hold_the_gpu_and_all_complete(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_door, everyone_there = [], threading.Event()
    inside, most, lock = 0, 0, threading.Lock()
    usual = gpu.gpu_slot

    @contextmanager
    def noted(device: torch.device | None) -> Iterator[None]:
        at_the_door.append(device)
        if len(at_the_door) == 3:
            everyone_there.set()
        with usual(device):
            yield

    def work(_folder: Path, _progress: progress.Progress) -> Done:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        # The first to get in stays until the others are waiting: they would be in here too if they could.
        assert everyone_there.wait(timeout=600)
        slots = held()
        with lock:
            inside -= 1
        return Done(holders=slots)

    monkeypatch.setattr(release_run, "gpu_slot", noted)
    releases = [open_release(str(tiny_config), {}, str(tmp_path / name)) for name in "abc"]
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda release: stage_of(release, work, CUDA), releases))
    assert most == 1
    assert [one.holders for one in done] == [1, 1, 1]
    assert held() == 0


@pytest.mark.usefixtures("one_gpu")
def test_a_reused_stage_and_a_stage_on_the_cpu_hold_no_slot(tiny_config: Path, tmp_path: Path) -> None:
    release = open_release(str(tiny_config), {}, str(tmp_path / "a"))
    assert stage_of(release, lambda *_given: Done(holders=held()), torch.device("cpu")).holders == 0
    with gpu.concurrency(gpu.LIMIT):
        # It would wait for ever for the slot that is taken here.
        assert stage_of(release, lambda *_given: Done(holders=-1), CUDA).holders == 0
    assert release.costs["capture"].cached


@pytest.mark.usefixtures("one_gpu")
def test_what_torch_keeps_of_the_gpu_goes_back_before_the_slot(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_then: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held_then.append(held()))
    stage_of(open_release(str(tiny_config), {}, str(tmp_path / "a")), lambda *_given: Done(holders=0), CUDA)
    assert held_then == [1]
    assert held() == 0


@pytest.mark.usefixtures("one_gpu")
def test_a_stage_that_fails_gives_its_slot_back(tiny_config: Path, tmp_path: Path) -> None:
    def fails(_folder: Path, _progress: progress.Progress) -> Done:
        assert held() == 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        stage_of(open_release(str(tiny_config), {}, str(tmp_path / "a")), fails, CUDA)
    assert held() == 0


def test_a_gpu_without_room_is_told_in_two_lines(tiny_config: Path, tmp_path: Path) -> None:
    def fails(_folder: Path, _progress: progress.Progress) -> Done:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand much more")

    with pytest.raises(WorkFailed) as caught:
        stage_of(open_release(str(tiny_config), {}, str(tmp_path / "a")), fails, CUDA)
    assert caught.value.cause.startswith("capture ran out of the memory of device `cuda`")
    assert caught.value.cause.endswith("Tried to allocate 2.00 GiB.")
    assert "batch size" in caught.value.remedy


def test_a_server_without_the_limit_lets_a_stage_in(tiny_config: Path, tmp_path: Path) -> None:
    release = open_release(str(tiny_config), {}, str(tmp_path / "a"))
    assert stage_of(release, lambda *_given: Done(holders=7), CUDA).holders == 7
