"""Measuring the slowdown: pairs of decode times, and models of which memory holds only the first layers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from taylor_ops import latency
from taylor_ops.config import Latency
from taylor_ops.convert import convert_in_memory, expansions_of
from taylor_ops.errors import BadInput, GateRejected, WorkFailed
from taylor_ops.latency import LatencyRecord, calibrate, layers_that_fit, pairs_of, scaled
from taylor_ops.models import load_original
from taylor_ops.original import Original
from tests.clocks import of_each
from tests.taylor_ops.conftest import CPU, Sample, silent

SETTINGS = Latency(target_slowdown=12.0, prompt_tokens=4, new_tokens=4)


@pytest.fixture
def clock_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the clock: a step takes as long as reading the layers at 1 GB/s would, and the head no time."""

    def decode_seconds(model: Any, _prompt: torch.Tensor, new_tokens: int) -> float:
        return new_tokens * sum(p.numel() * p.element_size() for p in model.model.layers.parameters()) / 1e9

    monkeypatch.setattr(latency, "decode_seconds", of_each(decode_seconds))
    monkeypatch.setattr(latency._Clock, "seconds", lambda _self: 0.0)


def memory_for(monkeypatch: pytest.MonkeyPatch, sample: Sample, layers: float) -> None:
    """Memory for a number of decoder layers of original and candidate, and for all that is outside of them."""
    original = Original(sample.original)
    inside = original.layer_bytes(torch.float32)
    both = 2 * inside + 4 * int(original.config.hidden_size) * sample.plan.columns
    outside = 2 * (original.bytes(torch.float32) - inside)
    room = outside + layers * both / int(original.config.num_hidden_layers)
    monkeypatch.setattr(latency, "room_for_weights", lambda _device: int(room))


@pytest.mark.parametrize(("room", "fit"), [(0.9, None), (1.1, 1), (1.9, 1), (2.1, 2), (50, 2)])
def test_as_many_layers_are_timed_as_fit_into_memory(
    llama: Sample, monkeypatch: pytest.MonkeyPatch, room: float, fit: int | None
) -> None:
    memory_for(monkeypatch, llama, room)
    original = Original(llama.original)
    if fit is None:
        with pytest.raises(BadInput, match="do not hold one decoder layer"):
            layers_that_fit(original, llama.plan, torch.float32, CPU)
    else:
        assert layers_that_fit(original, llama.plan, torch.float32, CPU) == fit


def test_the_first_layers_of_an_original_are_a_model_of_its_own(gated_or_plain: Sample) -> None:
    whole = Original(gated_or_plain.original)
    part = whole.first_layers(1)
    assert (len(part.mlps), part.config.num_hidden_layers) == (1, 1)
    assert len(whole.mlps) == whole.config.num_hidden_layers == 2
    first = load_original(gated_or_plain.original, "float32", CPU, part.config)
    expansions = expansions_of(whole, gated_or_plain.ranges, gated_or_plain.conversion)
    second = load_original(gated_or_plain.original, "float32", CPU, part.config)
    candidate = convert_in_memory(second, part, expansions, gated_or_plain.plan)
    ids = torch.randint(0, 100, (2, 9))
    with torch.inference_mode():
        torch.testing.assert_close(candidate(ids).logits, first(ids).logits, rtol=0, atol=3e-4)


@pytest.mark.usefixtures("clock_of_bytes")
def test_fewer_layers_give_the_slowdown_of_all(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(llama.original, llama.ranges, llama.conversion, SETTINGS, CPU, 0, silent)
    assert (whole.layers_measured, whole.layers) == (2, 2)
    monkeypatch.setattr(latency, "layers_that_fit", lambda *_given: 1)
    part = calibrate(llama.original, llama.ranges, llama.conversion, SETTINGS, CPU, 0, silent)
    assert (part.layers_measured, part.layers) == (1, 2)
    assert part.achieved.slowdown == pytest.approx(12, rel=0.03)
    # The two layers are not equally dear: the plans may differ by a rung or two.
    assert part.plan.columns == pytest.approx(whole.plan.columns, rel=0.2)


@pytest.mark.usefixtures("clock_of_bytes")
def test_every_candidate_is_timed_on_the_same_layers(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: set[int] = set()
    by_bytes, fits = latency.decode_seconds, [1, 2, 2, 2]

    def noted(model: Any, prompt: torch.Tensor, new_tokens: int) -> float:
        timed.add(len(model.model.layers))
        return by_bytes([model], prompt, new_tokens)[0]

    monkeypatch.setattr(latency, "decode_seconds", of_each(noted))
    monkeypatch.setattr(latency, "layers_that_fit", lambda *_given: fits.pop(0))
    found = chosen(llama)
    assert len(found.trials) > 1
    assert (timed, found.layers_measured) == ({1}, 1)


@pytest.mark.usefixtures("clock_of_bytes")
def test_a_candidate_for_which_the_layers_are_too_many_is_refused(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_bytes, original = latency.decode_seconds, Original(llama.original).layer_bytes(torch.float32) / 1e9

    def cheaper(model: Any, prompt: torch.Tensor, new_tokens: int) -> float:
        return new_tokens * original + (by_bytes([model], prompt, new_tokens)[0] - new_tokens * original) / 8

    monkeypatch.setattr(latency, "decode_seconds", of_each(cheaper))
    monkeypatch.setattr(latency, "READ_SHARE", 1.0)
    expected = latency._dearest_expected

    def memory_for_it(*given: Any) -> Any:
        roomy = expected(*given)
        memory_for(monkeypatch, replace(llama, plan=roomy), 2.1)
        return roomy

    monkeypatch.setattr(latency, "_dearest_expected", memory_for_it)
    with pytest.raises(BadInput, match=r"memory holds 2 decoder layers .*; slowdown 3.5 needs about \d+,\d+") as caught:
        chosen(llama, target_slowdown=3.5)
    assert "more memory" in caught.value.remedy


def chosen(llama: Sample, **changes: Any) -> LatencyRecord:
    settings = Latency.model_validate(SETTINGS.model_dump() | changes)
    return calibrate(llama.original, llama.ranges, llama.conversion, settings, CPU, 0, silent)


@pytest.mark.usefixtures("clock_of_bytes")
def test_a_plan_that_is_named_by_its_columns_is_the_only_candidate(llama: Sample) -> None:
    found = chosen(llama)
    again = chosen(llama, columns=found.plan.columns)
    assert (again.plan, len(again.trials)) == (found.plan, 1)
    ladder = [plan.columns for plan in llama.expansions.ladder()]
    with pytest.raises(BadInput, match=r"plan of `latency\.columns` has a slowdown of \d.*, not surely 12 within 3%"):
        chosen(llama, columns=ladder[0])
    with pytest.raises(BadInput, match=rf"no plan has so many; the nearest has {ladder[-1]:,}"):
        chosen(llama, columns=ladder[-1] + 1)


@pytest.mark.usefixtures("clock_of_bytes")
def test_the_chosen_plan_is_timed_at_other_shapes_too(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    by_bytes = latency.decode_seconds

    def also_noted(model: Any, prompt: torch.Tensor, new_tokens: int) -> float:
        seen.append(tuple(prompt.shape))
        return by_bytes([model], prompt, new_tokens)[0] * prompt.shape[0]

    monkeypatch.setattr(latency, "decode_seconds", of_each(also_noted))
    found = chosen(llama, also=[{"batch_size": 3, "prompt_tokens": 7}, {"batch_size": 2, "prompt_tokens": 5}])
    assert [(shape.batch_size, shape.prompt_tokens) for shape in found.shapes] == [(3, 7), (2, 5)]
    assert [shape.slowdown for shape in found.shapes] == [pytest.approx(found.achieved.slowdown)] * 2
    assert len(found.shapes[0].seconds_bundle) == SETTINGS.also_pairs
    assert seen.count((3, 7)) == 2 * (SETTINGS.also_pairs + SETTINGS.warmup)
    assert found.shapes[0].seconds_original[0] == pytest.approx(3 * found.achieved.seconds_original[0])


@pytest.fixture
def slow_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for another device: on one thread the bundle takes half as long again."""
    by_bytes = latency.decode_seconds

    def decode_seconds(model: Any, prompt: torch.Tensor, new_tokens: int) -> float:
        is_bundle = any(name.endswith("terms.weight") for name, _ in model.named_parameters())
        penalty = 1.5 if is_bundle and torch.get_num_threads() == 1 else 1.0
        return penalty * by_bytes([model], prompt, new_tokens)[0]

    monkeypatch.setattr(latency, "decode_seconds", of_each(decode_seconds))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: threads.append(number))
    threads = [2]


@pytest.mark.usefixtures("clock_of_bytes", "slow_on_one_thread")
def test_a_plan_must_meet_the_targets_of_other_devices(llama: Sample) -> None:
    one_thread = {"device": "cpu", "threads": 1, "tolerance": 0.05}
    found = chosen(llama, devices=[one_thread | {"target_slowdown": 18.0}])
    (there,) = found.devices
    assert there.slowdown == pytest.approx(1.5 * found.achieved.slowdown)
    assert (there.target, there.tolerance, there.layers_measured) == (18.0, 0.05, 2)
    assert there.device.endswith("1 threads")
    assert torch.get_num_threads() == found.threads == 2
    with pytest.raises(GateRejected, match=r"on .*1 threads the slowdown is 1[78]\.\d+ .*, not surely 12 within 5%"):
        chosen(llama, devices=[one_thread | {"target_slowdown": 12.0}])


@pytest.mark.usefixtures("clock_of_bytes")
def test_a_device_that_is_too_noisy_to_judge_is_no_miss(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "judged_pairs", lambda *_given: ([1.0, 1.0], [12.0, 30.0], "noisy"))
    with pytest.raises(WorkFailed, match="too noisy to tell whether the slowdown there is 12 within 10%"):
        chosen(llama, devices=[{"device": "cpu", "target_slowdown": 12.0}])


def test_devices_that_are_not_here_are_refused_before_anything_is_timed(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="no GPU is visible here"):
        chosen(llama, devices=[{"device": "cuda", "target_slowdown": 3.0}])


def test_seconds_are_scaled_but_for_those_of_the_head(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_original(llama.original, "float32", CPU)
    monkeypatch.setattr(latency._Clock, "seconds", lambda _self: 0.5)
    assert scaled(lambda: (1.5, 3.5), model, SETTINGS, 10)() == (10.5, 30.5)
    assert scaled(lambda: (0.4, 0.6), model, SETTINGS, 10)() == (0.5, pytest.approx(1.5))


def test_a_gpu_is_timed_on_its_own_stream_whichever_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            told.append(("record", stream))

        def elapsed_time(self, _end: Event) -> float:
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append(("synchronize", str(device))))
    clock = latency._Clock(torch.device("cuda:1"))
    for _ in range(2):
        with clock.running():
            told.append(("step",))
    record, wait = ("record", "stream of cuda:1"), ("synchronize", "cuda:1")
    assert told == [wait, record, ("step",), record, record, ("step",), record]
    assert clock.seconds() == 3.0
    assert told[-1] == wait


def test_each_pair_times_both_models_anew_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Model:
        device = CPU

        def __init__(self, name: str) -> None:
            self.name = name
            self.config = type("Config", (), {"vocab_size": 10})

    def decode_seconds(model: Model, prompt: torch.Tensor, new_tokens: int) -> float:
        assert prompt.shape == (1, 4)
        assert new_tokens == 4
        told.append(model.name)
        return float(len(told))

    monkeypatch.setattr(latency, "decode_seconds", of_each(decode_seconds))
    sample = pairs_of(Model("original"), Model("bundle"), SETTINGS, 0)
    assert told == ["original", "bundle"]
    assert [sample(), sample()] == [(3.0, 4.0), (5.0, 6.0)]
    assert told == ["original", "bundle"] * 3


def test_models_make_one_step_in_turn_and_only_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Model:
        """Takes its seconds for a step, and a hundred times as many for the prompt."""

        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def __call__(self, input_ids: torch.Tensor, **_settings: Any) -> Any:
            nonlocal now
            told.append(f"{self.name}{input_ids.shape[1]}")
            now += self.seconds * (100 if input_ids.shape[1] > 1 else 1)
            return SimpleNamespace(logits=torch.zeros(1, 1, 5), past_key_values=None)

    now = 0.0
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)
    seconds = latency.decode_seconds([Model("a", 1.0), Model("b", 3.0)], torch.zeros(1, 4, dtype=torch.int64), 2)
    assert told == ["a4", "b4", "a1", "b1", "a1", "b1"]
    assert seconds == [2.0, 6.0]
