"""The benchmark of the GPU, on a processor with a small layer, and where it has no GPU to measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.forward import ORDER, Shape
from taylor_ops.storage.files import canonical_json

Found = dict[str, dict[str, dict[str, Any]]]

CPU = torch.device("cpu")
SMALL = Shape(hidden=24, neurons=40, layers=1)
VALUES = {"released": (2 + ORDER + 1) * 24 * 40 + 4 * 40, "plain": 3 * 24 * 40, "terms": (ORDER + 1) * 24 * 40}


@pytest.fixture(scope="module")
def found() -> Found:
    return gpu.measured(CPU, SMALL, rounds=2, tokens=3)


def test_a_machine_without_a_gpu_is_told_so_in_a_plain_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr(gpu, "RESULT", tmp_path / "gpu.json")
    assert gpu.main() == 2
    told = capsys.readouterr()
    assert told.err == "benchmarks.gpu measures on a GPU, and torch sees none here: run it on a GPU worker\n"
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_bytes_are_those_of_the_layers_in_each_dtype(found: Found, dtype: str, width: int) -> None:
    convert, decode = found[dtype]["convert"], found[dtype]["decode"]
    assert convert["bytes"] == width * VALUES["terms"]
    assert (decode["bytes"], decode["plain_bytes"]) == (width * VALUES["released"], width * VALUES["plain"])


def test_the_layers_that_are_compared_say_the_same(found: Found) -> None:
    assert found["float32"]["decode"]["relative_difference_from_the_plain"] < 1e-3
    assert found["bfloat16"]["decode"]["relative_difference_from_the_plain"] < 3e-2


@pytest.mark.parametrize("part", ["convert", "decode"])
def test_every_round_of_every_contender_is_kept(found: Found, part: str) -> None:
    for of_dtype in found.values():
        seconds = of_dtype[part]["seconds"]
        assert all(len(taken) == 2 for taken in seconds.values())
    assert canonical_json(found)


def test_ratios_are_those_of_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"convert": 4.0, "copy": 3.0, "released": 60.0, "plain": 12.0, "read (sum)": 45.0}
    taken["read (matrix times vector)"] = 51.0
    monkeypatch.setattr(gpu, "_in_turn", lambda contenders, *_: {name: [taken[name]] for name in contenders})
    found = gpu.measured(CPU, SMALL, rounds=1, tokens=3)["float32"]
    assert found["convert"]["share_of_the_copy"] == 0.75
    assert found["decode"]["share_of_the_bytes_bound"] == 0.75
    assert found["decode"]["slowdown"] == 5.0
    assert found["decode"]["seconds"]["released"] == [20.0]
    assert found["decode"]["gigabytes_per_second"] == pytest.approx(4 * VALUES["released"] / 15e9)


def test_what_is_shown_has_a_row_a_dtype(found: Found, capsys: pytest.CaptureFixture[str]) -> None:
    gpu._show({"device": "a device", "order": ORDER, "goal": {"convert": 0.8, "decode": 0.8}, "dtypes": found})
    shown = capsys.readouterr().out
    assert "a device, one layer" in shown
    assert "bfloat16" in shown
