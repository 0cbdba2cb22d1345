"""Conversions that were killed go on where they stopped, and end with the bytes of one that was not."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion import parts
from taylor_ops.conversion.convert import convert, convert_part
from taylor_ops.conversion.parts import Job
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.errors import WorkFailed
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.storage.files import sha256_of_tree
from tests.support.forked import exit_code
from tests.support.killed_conversion import killed_conversion
from tests.taylor_ops.conftest import Sample, silent


@pytest.fixture(autouse=True)
def one_layer_a_part(llama: Sample, phi: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """For these tests alone: the samples, which all tests of a process share, are there before."""
    monkeypatch.setattr(parts, "_PART_VALUES", 0)


def converted(sample: Sample, folder: Path, kept: Path | None = None) -> ConvertedModel:
    return convert(sample.subject, sample.plan, folder, silent, kept)


@pytest.mark.parametrize(("killed", "finished"), [("after a part", 2), ("in a file", 1)])
def test_a_killed_conversion_goes_on_at_its_next_part_and_ends_with_the_same_bytes(
    gated_or_plain: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Any, finished: int
) -> None:
    sample, kept, folder = gated_or_plain, tmp_path / "kept", tmp_path / "converted"
    assert exit_code(killed_conversion, sample.subject, sample.plan, folder, kept, killed) == -signal.SIGKILL
    assert not folder.exists()
    assert len(list(kept.glob("0*"))) == finished

    made = []
    usual = conversion.part_tensors
    monkeypatch.setattr(conversion, "part_tensors", lambda *given: made.append(given) or usual(*given))
    record = converted(sample, folder, kept)
    assert len(made) == 3 - finished
    undisturbed = converted(sample, tmp_path / "undisturbed")
    assert sha256_of_tree(folder) == sha256_of_tree(tmp_path / "undisturbed")
    assert record == undisturbed


def test_a_part_that_another_worker_finishes_meanwhile_is_there_once_and_whole(
    gated_or_plain: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, nested = conversion.write_shards, []

    def after_another(*given: Any) -> int:
        written = usual(*given)
        if not nested:
            nested.append(jobs[0])
            convert_part(jobs[0])
        return written

    def both(wanted: Sequence[Job], report: Any) -> None:
        jobs.extend(wanted)
        for job in wanted:
            convert_part(job)

    jobs: list[Job] = []
    monkeypatch.setattr(conversion, "write_shards", after_another)
    sample, kept = gated_or_plain, tmp_path / "kept"
    convert(sample.subject, sample.plan, tmp_path / "converted", silent, kept, both)
    assert nested
    assert sorted(path.name for path in kept.iterdir()) == ["00000", "00001", "00002"]
    converted(sample, tmp_path / "undisturbed")
    assert sha256_of_tree(tmp_path / "converted") == sha256_of_tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("arrive", [0, 2])
def test_parts_that_workers_wrote_to_another_disk_are_missed(
    gated_or_plain: Sample, tmp_path: Path, arrive: int
) -> None:
    def elsewhere(jobs: Sequence[Job], report: Any) -> None:
        for job in jobs[:arrive]:
            convert_part(job)

    sample, kept = gated_or_plain, tmp_path / "kept"
    given = (sample.subject, sample.plan, tmp_path / "converted", silent, kept)
    with pytest.raises(WorkFailed, match=f"0000{arrive} was made by a worker but is not on this machine") as caught:
        convert(*given, elsewhere)
    assert "shared file system" in caught.value.remedy
    assert not (tmp_path / "converted").exists()


def test_what_a_killed_run_had_begun_is_cleared(gated_or_plain: Sample, tmp_path: Path) -> None:
    begun = tmp_path / "kept" / ".00001.abc" / "00001"
    begun.mkdir(parents=True)
    converted(gated_or_plain, tmp_path / "converted", tmp_path / "kept")
    assert not begun.parent.exists()


def test_parts_hold_every_tensor_once_however_many_there_are(gated_or_plain: Sample, tmp_path: Path) -> None:
    converted(gated_or_plain, tmp_path / "converted")
    assert len(list((tmp_path / "converted").glob("*.safetensors"))) == 3
    one, three = (Checkpoint(folder) for folder in (gated_or_plain.converted, tmp_path / "converted"))
    assert sorted(name for _, name in three.stored()) == sorted(name for _, name in one.stored())
    assert all(torch.equal(one.tensor(name), three.tensor(name)) for name in one.names())
