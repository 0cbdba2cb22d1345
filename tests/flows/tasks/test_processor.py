"""Stages that go on where a killed run stopped do so on the same kind of processor: on another one bits may differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.run import release_run
from flows.tasks import conversion, preparation
from taylor_ops.config_file.read import read
from taylor_ops.machine import devices
from tests.support import release_example as example
from tests.support.keyed import key_of


def test_capture_goes_on_only_on_a_gpu_of_the_same_model(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(gpu: str) -> str:
        monkeypatch.setattr(release_run, "device_named", lambda _name: torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: gpu)
        return key_of(preparation.capture, read(tiny_config, {}), example.source())

    assert key("one GPU") == key("one GPU")
    assert key("one GPU") != key("another GPU")


@pytest.mark.parametrize("stage", ["capture", "convert"])
def test_a_stage_goes_on_only_with_the_same_instructions_of_the_cpu_on_any_number_of_threads(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    task, found = {
        "capture": (preparation.capture, ()),
        "convert": (conversion.convert, (example.captured(), example.latency())),
    }[stage]

    def key(instructions: str, threads: int, maker: str = "GenuineIntel") -> str:
        monkeypatch.setattr(devices, "_maker", lambda: maker)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return key_of(task, read(tiny_config, {"device": "cpu"}), example.source(), *found)

    assert key("AVX2", 4) == key("AVX2", 8)
    assert key("AVX2", 4) != key("AVX512", 4)
    assert key("AVX2", 4) != key("AVX2", 4, "AuthenticAMD")
