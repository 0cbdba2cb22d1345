"""Conversion on several GPUs, for which the processor stands in: parts in turn, at once, with the same bytes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion import parts
from taylor_ops.conversion import terms as terms_room
from taylor_ops.conversion.convert import convert, convert_part
from taylor_ops.conversion.parts import Job
from taylor_ops.conversion.terms import terms
from taylor_ops.errors import WorkFailed
from taylor_ops.model.original import Original
from taylor_ops.storage.files import sha256_of_tree
from tests.taylor_ops.conftest import Sample, silent

CUDA = torch.device("cuda")


@pytest.fixture
def made_on(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two GPUs, one layer a part: the device of every matrix of terms, which the processor makes in its place."""
    found: list[str] = []

    def here(weight: Any, stacked: Any, dtype: Any, device: torch.device) -> Any:
        found.append(str(device))
        return terms(weight, stacked, dtype)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(terms_room, "terms", here)
    monkeypatch.setattr(parts, "_PART_VALUES", 0)
    return found


def converted(sample: Sample, folder: Path, device: torch.device, progress: Any = silent) -> dict[str, str]:
    convert(sample.subject, sample.plan, folder, progress, device=device)
    return sha256_of_tree(folder)


def test_each_gpu_makes_its_share_at_the_same_time_with_the_bytes_of_one_device(
    llama: Sample, made_on: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = converted(llama, tmp_path / "alone", torch.device("cpu"))
    assert set(made_on) == {"cpu"}
    made_on.clear()

    both, usual = threading.Barrier(2, timeout=120), conversion.convert_part
    threads, told = torch.get_num_threads(), []

    def together(job: Job) -> None:
        # The parts before the last have one another for company; who comes too late waits for ever.
        if job.number < 2:
            both.wait()
        assert torch.get_num_threads() == 1
        usual(job)

    monkeypatch.setattr(conversion, "convert_part", together)
    assert converted(llama, tmp_path / "both", CUDA, lambda *done: told.append(done)) == alone
    assert sorted(made_on) == ["cuda:0", "cuda:1"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert torch.get_num_threads() == threads


def test_a_gpu_that_is_named_makes_all(llama: Sample, made_on: list[str], tmp_path: Path) -> None:
    converted(llama, tmp_path / "converted", torch.device("cuda:1"))
    assert set(made_on) == {"cuda:1"}


def test_a_failure_on_one_gpu_ends_the_conversion_and_begins_no_further_part(
    llama: Sample, made_on: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, begun = threading.Event(), []

    def fails(job: Job) -> None:
        begun.append(job.number)
        if job.number == 1:
            raise WorkFailed("the GPU fell off the bus", "put it back")
        assert stopped.wait(timeout=120)

    monkeypatch.setattr(conversion, "convert_part", fails)
    monkeypatch.setattr(conversion, "Event", lambda: stopped)
    with pytest.raises(WorkFailed, match="fell off the bus"):
        converted(llama, tmp_path / "converted", CUDA)
    assert sorted(begun) == [0, 1]
    assert not (tmp_path / "converted").exists()


def test_progress_is_told_from_the_thread_that_converts(llama: Sample, made_on: list[str], tmp_path: Path) -> None:
    threads: list[threading.Thread] = []
    converted(llama, tmp_path / "converted", CUDA, lambda *_done: threads.append(threading.current_thread()))
    assert threads == 3 * [threading.current_thread()]


def test_a_progress_that_fails_begins_no_further_part(
    llama: Sample, made_on: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, begun = threading.Event(), []

    def part(job: Job) -> None:
        begun.append(job.number)
        # The second GPU is done at once and has no other part; the first goes on when the progress has failed.
        if job.number == 0:
            assert stopped.wait(timeout=120)

    def interrupt(*_done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "convert_part", part)
    monkeypatch.setattr(conversion, "Event", lambda: stopped)
    with pytest.raises(KeyboardInterrupt):
        converted(llama, tmp_path / "converted", CUDA, interrupt)
    assert sorted(begun) == [0, 1]
    assert not (tmp_path / "converted").exists()


# Workers on other machines


def job_on(sample: Sample, folder: Path, **changes: Any) -> Job:
    part = parts.parts_of(Original(sample.original), sample.plan)[0]
    return Job(sample.original, sample.ranges, sample.plan, sample.conversion, part, folder, **changes)


def test_a_worker_with_another_kind_of_processor_refuses_a_part(llama: Sample, tmp_path: Path) -> None:
    job = job_on(llama, tmp_path / "part", processor="cpu Z80")
    with pytest.raises(WorkFailed, match=r"another kind of processor \(cpu [\w ]+\) than .* begun on \(cpu Z80\)"):
        convert_part(job)
    assert not job.folder.exists()


def test_a_worker_without_a_gpu_makes_terms_on_its_processor(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = []
    for name, device in (("gpu", CUDA), ("processor", torch.device("cpu"))):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        job = job_on(llama, tmp_path / name, device=device)
        assert job.place == torch.device("cpu")
        convert_part(job)
        sums.append(sha256_of_tree(job.folder))
    assert sums[0] == sums[1]


def test_a_worker_that_lacks_the_gpu_that_is_named_says_so(llama: Sample, tmp_path: Path) -> None:
    job = job_on(llama, tmp_path / "part", device=torch.device("cuda:7"))
    with pytest.raises(WorkFailed, match="has no device cuda:7"):
        convert_part(job)
