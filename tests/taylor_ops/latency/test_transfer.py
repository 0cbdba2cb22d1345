"""The chosen plan elsewhere: timed at other shapes and on other devices, and judged where there is a target."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, GateRejected, WorkFailed
from taylor_ops.latency import timing, transfer
from taylor_ops.latency.calibrate import calibrate
from taylor_ops.latency.record import LatencyRecord, Transfer
from taylor_ops.latency.timing import Behind
from taylor_ops.latency.transfer import require_targets_met
from taylor_ops.stages import TRANSFER, inputs_of_transfer
from tests.support import release_example as example
from tests.support.clocks import of_each
from tests.taylor_ops.conftest import CPU, Sample, silent

SETTINGS = Latency(target_slowdown=12.0, prompt_tokens=4, min_seconds=0, also=())
ONE_THREAD = {"device": "cpu", "threads": 1, "tolerance": 0.05}

pytestmark = pytest.mark.usefixtures("clock_of_bytes")


@pytest.fixture
def found(llama: Sample, clock_of_bytes: None) -> LatencyRecord:
    """The plan that a calibration chose."""
    return calibrate(llama.subject, SETTINGS, CPU, 0, silent)


def elsewhere(llama: Sample, found: LatencyRecord, **changes: Any) -> Transfer:
    settings = Latency.model_validate(SETTINGS.model_dump() | changes)
    return transfer.transfer(llama.subject, found, settings, CPU, 0, silent)


def test_the_chosen_plan_is_timed_at_other_shapes_too(
    llama: Sample, found: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    by_bytes, usual, timed = timing.decode_seconds, timing.read_prompt, []

    def also_noted(model: Any, prompt: torch.Tensor) -> Behind:
        read.append(tuple(prompt.shape))
        return usual(model, prompt)

    def slower_together(model: Any, behind: Behind, new_tokens: int) -> float:
        timed.append(len(behind.token))
        return by_bytes([model], [behind], new_tokens)[0] * len(behind.token)

    monkeypatch.setattr(timing, "read_prompt", also_noted)
    monkeypatch.setattr(timing, "decode_seconds", of_each(slower_together))
    also = [{"batch_size": 3, "prompt_tokens": 7}, {"batch_size": 2, "prompt_tokens": 5}]
    shapes = elsewhere(llama, found, also=also).shapes
    assert [(shape.batch_size, shape.prompt_tokens) for shape in shapes] == [(3, 7), (2, 5)]
    assert [shape.slowdown for shape in shapes] == [pytest.approx(found.achieved.slowdown)] * 2
    assert read == [(3, 7)] * 2 + [(2, 5)] * 2
    assert timed.count(3) == 2 * (SETTINGS.also_pairs + SETTINGS.warmup)
    assert len(shapes[0].seconds_bundle) == SETTINGS.also_pairs
    assert shapes[0].seconds_original[0] == pytest.approx(3 * found.achieved.seconds_original[0])


def test_no_more_layers_are_timed_than_the_target_was_met_with(
    llama: Sample, found: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers: list[int] = []
    by_bytes = timing.decode_seconds

    def noted(model: Any, behind: Behind, new_tokens: int) -> float:
        layers.append(len(model.model.layers))
        return by_bytes([model], [behind], new_tokens)[0]

    monkeypatch.setattr(timing, "decode_seconds", of_each(noted))
    part = found.model_copy(update={"layers_measured": 1})
    elsewhere(llama, part, also=[{"batch_size": 1, "prompt_tokens": 2}])
    assert set(layers) == {1}


def test_a_shape_without_a_target_is_timed_on_a_busy_machine_too(
    llama: Sample, found: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = itertools.count()
    monkeypatch.setattr(timing, "waited", lambda: {"one": float(next(waits))})
    (shape,) = elsewhere(llama, found, also=[{"batch_size": 1, "prompt_tokens": 2}]).shapes
    assert len(shape.seconds_bundle) == SETTINGS.also_pairs


def test_where_nothing_else_is_asked_for_nothing_is_loaded(
    llama: Sample, found: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "Candidates", None)
    assert elsewhere(llama, found) == Transfer(shapes=(), devices=())


@pytest.fixture
def slow_on_one_thread(monkeypatch: pytest.MonkeyPatch, found: LatencyRecord) -> None:
    """Stands in for another device: on one thread the bundle takes half as long again."""
    by_bytes, threads = timing.decode_seconds, [2]

    def decode_seconds(model: Any, behind: Behind, new_tokens: int) -> float:
        is_bundle = any(name.endswith("terms.weight") for name, _ in model.named_parameters())
        penalty = 1.5 if is_bundle and torch.get_num_threads() == 1 else 1.0
        return penalty * by_bytes([model], [behind], new_tokens)[0]

    monkeypatch.setattr(timing, "decode_seconds", of_each(decode_seconds))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: threads.append(number))


@pytest.mark.usefixtures("slow_on_one_thread")
def test_a_plan_must_meet_the_targets_of_other_devices(llama: Sample, found: LatencyRecord) -> None:
    met = elsewhere(llama, found, devices=[ONE_THREAD | {"target_slowdown": 18.0}])
    (there,) = met.devices
    assert there.slowdown == pytest.approx(1.5 * found.achieved.slowdown)
    assert (there.target, there.tolerance, there.layers_measured, there.met) == (18.0, 0.05, 2, True)
    assert there.device.endswith("1 threads")
    assert torch.get_num_threads() == 2
    require_targets_met(met)
    missed = elsewhere(llama, found, devices=[ONE_THREAD | {"target_slowdown": 12.0}])
    with pytest.raises(GateRejected, match=r"on .*1 threads the slowdown is 1[78]\.\d+ .*, not surely 12 within 5%"):
        require_targets_met(missed)


def test_a_device_that_is_too_noisy_to_judge_is_no_miss(
    llama: Sample, found: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "judged_pairs", lambda *_given: ([1.0, 1.0], [12.0, 30.0], "noisy"))
    with pytest.raises(WorkFailed, match="too noisy to tell whether the slowdown there is 12 within 10%"):
        elsewhere(llama, found, devices=[{"device": "cpu", "target_slowdown": 12.0}])


def test_devices_that_are_not_here_are_refused_before_anything_is_timed(
    llama: Sample, found: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="no GPU is visible here"):
        elsewhere(llama, found, devices=[{"device": "cuda", "target_slowdown": 3.0}])


@pytest.mark.parametrize("changes", [{"batch_size": 2}, {"prompt_tokens": 5}, {"new_tokens": 9}], ids=str)
def test_the_plan_is_timed_again_where_batch_or_length_change(changes: dict[str, int]) -> None:
    def key(settings: Latency) -> str:
        config = example.config(latency=settings)
        inputs = inputs_of_transfer(config, example.source(), example.captured(), example.latency(), [CPU])
        return TRANSFER.key(inputs)

    assert key(SETTINGS) == key(SETTINGS.model_copy(update={"target_slowdown": 11.0}))
    assert key(SETTINGS) != key(SETTINGS.model_copy(update=changes))
