"""Conversions that were killed go on where they stopped, and end with the bytes of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taylor_ops import convert as conversion
from taylor_ops.checkpoint import Checkpoint
from taylor_ops.convert import ConvertedModel, convert
from taylor_ops.files import sha256_of_tree
from tests.taylor_ops import killed_conversion
from tests.taylor_ops.conftest import Sample, silent

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_layer_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_PART_VALUES", 0)


def converted(sample: Sample, folder: Path, kept: Path | None = None) -> ConvertedModel:
    return convert(sample.original, sample.ranges, sample.plan, sample.conversion, folder, silent, kept)


@pytest.mark.parametrize(("killed", "finished"), [("after a part", 2), ("in a file", 1)])
def test_a_killed_conversion_goes_on_at_its_next_part_and_ends_with_the_same_bytes(
    gated_or_plain: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str, finished: int
) -> None:
    sample, kept, folder = gated_or_plain, tmp_path / "kept", tmp_path / "converted"
    sample.plan.write(tmp_path / "plan.json")
    request = {
        "original": str(sample.original),
        "ranges": str(sample.ranges),
        "plan": str(tmp_path / "plan.json"),
        "conversion": sample.conversion.model_dump(mode="json"),
        "folder": str(folder),
        "kept": str(kept),
        "killed": killed,
    }
    command = [sys.executable, killed_conversion.__file__]
    ended = subprocess.run(command, input=json.dumps(request), text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert ended.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len(list(kept.glob("0*"))) == finished

    made = []
    usual = conversion._part_tensors
    monkeypatch.setattr(conversion, "_part_tensors", lambda *given: made.append(given) or usual(*given))
    record = converted(sample, folder, kept)
    assert len(made) == 3 - finished
    undisturbed = converted(sample, tmp_path / "undisturbed")
    assert sha256_of_tree(folder) == sha256_of_tree(tmp_path / "undisturbed")
    assert record == undisturbed


def test_parts_hold_every_tensor_once_however_many_there_are(gated_or_plain: Sample, tmp_path: Path) -> None:
    converted(gated_or_plain, tmp_path / "converted")
    assert len(list((tmp_path / "converted").glob("*.safetensors"))) == 3
    one, three = (Checkpoint(folder) for folder in (gated_or_plain.converted, tmp_path / "converted"))
    assert sorted(name for _, name in three.stored()) == sorted(name for _, name in one.stored())
    assert all(torch.equal(one.tensor(name), three.tensor(name)) for name in one.names())
