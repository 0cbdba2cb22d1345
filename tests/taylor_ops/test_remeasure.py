"""A slowdown that is measured again: as stated, not as stated, or not to be told."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from taylor_ops import latency, models
from taylor_ops.bundle import MANIFEST
from taylor_ops.calibration import steady_pairs
from taylor_ops.config import Latency
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.files import canonical_json, write_text
from taylor_ops.remeasure import Remeasured, remeasure
from taylor_ops.summary import remeasured_table
from tests.taylor_ops.conftest import CPU, Sample, silent

TRUE = 4.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the clock: a bundle takes four times as long as an original."""

    def decode_seconds(model: Any, _prompt: torch.Tensor, new_tokens: int) -> float:
        return new_tokens * (TRUE if type(model).__name__.startswith("Taylor") else 1.0)

    monkeypatch.setattr(latency, "decode_seconds", decode_seconds)


def again(sample: Sample, tmp_path: Path, target: float) -> Remeasured:
    bundle = shutil.copytree(sample.converted, tmp_path / "bundle")
    stated = {"target": target, "tolerance": 0.03, "device": "Example GPU"}
    manifest = {
        "format": 1,
        "files": {},
        "exactness": {"dtype": "float32"},
        "slowdown": stated | {"batch_size": 1, "prompt_tokens": 4, "new_tokens": 5},
    }
    write_text(bundle / MANIFEST, canonical_json(manifest))
    return remeasure(bundle, sample.original, CPU, 0, silent)


@pytest.mark.parametrize(("target", "as_stated"), [(4.0, True), (4.1, True), (4.2, False), (3.5, False)])
def test_a_slowdown_is_as_stated_within_the_tolerance_of_the_manifest(
    llama: Sample, tmp_path: Path, target: float, as_stated: bool
) -> None:
    found = again(llama, tmp_path, target)
    assert found.slowdown == TRUE
    assert found.as_stated == as_stated
    assert (found.released_on, found.new_tokens) == ("Example GPU", 5)
    assert set(found.seconds_original) == {5.0}
    cells = [str(cell) for column in remeasured_table(found).columns for cell in column.cells]
    assert ("yes" if as_stated else "no") in cells


def test_an_interval_that_reaches_out_of_the_band_is_not_as_stated(llama: Sample, tmp_path: Path) -> None:
    found = again(llama, tmp_path, 4.0)
    assert not found.model_copy(update={"ci95": (3.87, 3.99)}).as_stated
    assert not found.model_copy(update={"ci95": (4.0, 4.13)}).as_stated
    assert found.model_copy(update={"ci95": (3.89, 4.11)}).as_stated


def test_what_memory_does_not_hold_is_not_timed(llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = llama.record.bytes + llama.record.original_bytes
    monkeypatch.setattr(models, "free_memory", lambda _device: int(0.7 * needed / models._ROOM))
    with pytest.raises(BadInput, match="what would be timed is the disk"):
        again(llama, tmp_path, 4.0)


def test_pairs_are_taken_until_they_settle_the_slowdown_or_there_are_too_many() -> None:
    settings = Latency(tolerance=0.03, pairs=11, max_pairs=99)
    few, _ = steady_pairs(lambda: (1.0, 4.0), settings, silent)
    assert len(few) == 11
    restless = itertools.cycle([3.8, 4.2, 4.0, 4.01, 3.99])
    some, _ = steady_pairs(lambda: (1.0, next(restless)), settings, silent)
    assert 11 < len(some) < 99
    wild = itertools.cycle([2.0, 6.0])
    with pytest.raises(WorkFailed, match="99 pairs do not settle it"):
        steady_pairs(lambda: (1.0, next(wild)), settings, silent)
