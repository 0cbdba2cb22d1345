"""The preflight: what it estimates is near what a release takes, and what cannot work ends before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from taylor_ops import latency, preflight
from taylor_ops.config import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.preflight import Preflight
from taylor_ops.summary import preflight_table
from tests.taylor_ops.conftest import CPU, Sample, silent


@pytest.fixture(autouse=True)
def clock_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the clock: a step takes as long as reading the layers at 1 GB/s would, and the head no time."""

    def decode_seconds(model: Any, _prompt: torch.Tensor, new_tokens: int) -> float:
        return new_tokens * sum(p.numel() * p.element_size() for p in model.model.layers.parameters()) / 1e9

    monkeypatch.setattr(latency, "decode_seconds", decode_seconds)
    monkeypatch.setattr(latency._Clock, "seconds", lambda _self: 0.0)


def estimate(sample: Sample, artifacts: Path, **latency_settings: float) -> Preflight:
    config = ReleaseConfig.model_validate(
        {
            "name": "tiny",
            "version": "1.0.0",
            "source": {"kind": "folder", "path": str(sample.original)},
            "conversion": sample.conversion.model_dump(),
            "latency": {"target_slowdown": 12.0, "prompt_tokens": 4, **latency_settings},
            "card": {"license": "mit"},
            "publish": {"repo_id": "org/tiny"},
        }
    )
    return preflight.preflight(config, artifacts, silent)


def test_the_estimate_is_near_what_a_release_takes(llama: Sample, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    found = estimate(llama, artifacts)
    calibrated = latency.calibrate(llama.original, llama.ranges, llama.conversion, _settings(12.0), CPU, 0, silent)
    assert (found.neurons, found.layers, found.layers_probed) == (96, 2, 2)
    assert found.access == "local files"
    assert found.mean_order == pytest.approx(calibrated.plan.mean_order, rel=0.25)
    assert found.reachable[0] < 12 < found.reachable[1]
    assert found.read_bytes == sum(file.stat().st_size for file in llama.original.glob("*.safetensors"))
    assert found.disk_needed > 2 * found.bundle_bytes > 2 * found.read_bytes
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert not artifacts.exists()
    assert preflight_table(found).renderables


def _settings(target: float) -> latency.Latency:
    return latency.Latency(target_slowdown=target, prompt_tokens=4)


@pytest.mark.parametrize("target", [1.01, 100.0])
def test_a_target_out_of_reach_is_refused_with_what_can_be_reached(
    llama: Sample, tmp_path: Path, target: float
) -> None:
    with pytest.raises(
        BadInput, match=rf"target slowdown {target:g} cannot be reached: about \d+\.\d\d to \d"
    ) as caught:
        estimate(llama, tmp_path, target_slowdown=target)
    assert "conversion.tolerance" in caught.value.remedy
    assert "conversion.max_order" in caught.value.remedy


def test_a_large_model_is_probed_on_its_first_layers(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = estimate(llama, tmp_path)
    monkeypatch.setattr(preflight, "_SMALL_BYTES", 0)
    monkeypatch.setattr(preflight, "_LAYERS", 1)
    large = estimate(llama, tmp_path)
    assert (small.layers_probed, large.layers_probed, large.layers) == (2, 1, 2)
    assert large.reachable[0] == pytest.approx(small.reachable[0], rel=0.5)
    assert large.neurons == small.neurons


def test_a_disk_without_room_is_refused(llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int = 10**9
        used: int = 10**9
        free: int = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage())
    with pytest.raises(BadInput, match=r"needs about 0\.0 GB of disk"):
        estimate(llama, tmp_path)


def test_a_source_that_is_not_there_is_refused(llama: Sample, tmp_path: Path) -> None:
    shutil.copytree(llama.original, tmp_path / "broken")
    next((tmp_path / "broken").glob("*.safetensors")).unlink()
    broken = Sample(**{**vars(llama), "original": tmp_path / "broken"})
    with pytest.raises(BadInput):
        estimate(broken, tmp_path)
