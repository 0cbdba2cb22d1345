"""Measuring the slowdown: pairs of decode times, and models of which memory holds only the first layers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from taylor_ops.config.latency import Latency
from taylor_ops.conversion import in_memory
from taylor_ops.conversion.in_memory import convert_in_memory
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.latency import calibrate as latency
from taylor_ops.latency import candidates, column_cost, timing
from taylor_ops.latency.calibrate import calibrate
from taylor_ops.latency.candidates import Candidates, layers_that_fit
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.latency.timing import Behind, decode_seconds, pairs_of, read_prompt, scaled
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.model.original import Original
from taylor_ops.series import ladder as plan
from tests.support.clocks import of_each
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import CPU, Sample, silent

SETTINGS = Latency(target_slowdown=12.0, prompt_tokens=4, min_seconds=0)


def memory_for(sample: Sample, layers: float) -> int:
    """Bytes for a number of decoder layers of original and candidate, and for all that is outside of them."""
    original = Original(sample.original)
    inside = original.layer_bytes(torch.float32)
    both = 2 * inside + 4 * int(original.config.hidden_size) * sample.plan.columns
    outside = 2 * (original.bytes(torch.float32) - inside)
    return int(outside + layers * both / int(original.config.num_hidden_layers))


@pytest.mark.parametrize(("room", "fit"), [(0.9, None), (1.1, 1), (1.9, 1), (2.1, 2), (50, 2)])
def test_as_many_layers_are_timed_as_fit_into_memory(llama: Sample, room: float, fit: int | None) -> None:
    original, room_for = Original(llama.original), memory_for(llama, room)
    if fit is None:
        with pytest.raises(BadInput, match="do not hold one decoder layer"):
            layers_that_fit(original, llama.plan, torch.float32, room_for)
    else:
        assert layers_that_fit(original, llama.plan, torch.float32, room_for) == fit


def test_the_first_layers_of_an_original_are_a_model_of_its_own(gated_or_plain: Sample) -> None:
    whole = Original(gated_or_plain.original)
    part = whole.first_layers(1)
    assert (len(part.mlps), part.config.num_hidden_layers) == (1, 1)
    assert len(whole.mlps) == whole.config.num_hidden_layers == 2
    first = load_original(gated_or_plain.original, "float32", CPU, part.config)
    expansions = Subject(whole, gated_or_plain.ranges, gated_or_plain.conversion).expansions()
    second = load_original(gated_or_plain.original, "float32", CPU, part.config)
    candidate = convert_in_memory(second, part, expansions, gated_or_plain.plan)
    ids = torch.randint(0, 100, (2, 9))
    with torch.inference_mode():
        torch.testing.assert_close(candidate(ids).logits, first(ids).logits, rtol=0, atol=3e-4)


@pytest.mark.usefixtures("clock_of_bytes")
def test_fewer_layers_give_the_slowdown_of_all(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(llama.subject, SETTINGS, CPU, 0, silent)
    assert (whole.layers_measured, whole.layers) == (2, 2)
    monkeypatch.setattr(latency, "layers_that_fit", lambda *_given: 1)
    part = calibrate(llama.subject, SETTINGS, CPU, 0, silent)
    assert (part.layers_measured, part.layers) == (1, 2)
    assert part.achieved.slowdown == pytest.approx(12, rel=0.03)
    # The two layers are not equally dear: the plans may differ by a rung or two.
    assert part.plan.columns == pytest.approx(whole.plan.columns, rel=0.2)


@pytest.mark.usefixtures("clock_of_bytes")
def test_every_candidate_is_timed_on_the_same_layers(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: set[int] = set()
    by_bytes, fits = timing.decode_seconds, [1, 2, 2, 2]

    def noted(model: Any, behind: Behind, new_tokens: int) -> float:
        timed.add(len(model.model.layers))
        return by_bytes([model], [behind], new_tokens)[0]

    monkeypatch.setattr(timing, "decode_seconds", of_each(noted))
    monkeypatch.setattr(latency, "layers_that_fit", lambda *_given: fits.pop(0))
    found = chosen(llama)
    assert len(found.trials) > 1
    assert (timed, found.layers_measured) == ({1}, 1)


@pytest.mark.usefixtures("clock_of_bytes")
def test_a_candidate_for_which_the_layers_are_too_many_is_refused(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_bytes, original = timing.decode_seconds, Original(llama.original).layer_bytes(torch.float32) / 1e9

    def cheaper(model: Any, behind: Behind, new_tokens: int) -> float:
        return new_tokens * original + (by_bytes([model], [behind], new_tokens)[0] - new_tokens * original) / 8

    monkeypatch.setattr(timing, "decode_seconds", of_each(cheaper))
    monkeypatch.setattr(column_cost, "read_share", lambda *_given: 1.0)
    expected = latency._dearest_expected

    def memory_for_it(*given: Any) -> Any:
        roomy = expected(*given)
        room = memory_for(replace(llama, plan=roomy), 2.1)
        monkeypatch.setattr(latency, "room_for_weights", lambda _device: room)
        return roomy

    monkeypatch.setattr(latency, "_dearest_expected", memory_for_it)
    with pytest.raises(BadInput, match=r"memory holds 2 decoder layers .*; slowdown 3.5 needs about \d+,\d+") as caught:
        chosen(llama, target_slowdown=3.5)
    assert "more memory" in caught.value.remedy


def chosen(llama: Sample, **changes: Any) -> LatencyRecord:
    settings = Latency.model_validate(SETTINGS.model_dump() | changes)
    return calibrate(llama.subject, settings, CPU, 0, silent)


def test_a_candidate_for_which_the_disk_has_no_room_says_how_much_it_takes(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = Candidates(Original(llama.original), llama.expansions, "float32", CPU, 2, 0, tmp_path)
    monkeypatch.setattr("taylor_ops.storage.files._free", lambda _place: 1000)
    with pytest.raises(WorkFailed, match=r"about 0\.\d MB are needed, 0\.0 MB are free"):
        candidates.take(llama.plan)


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


def test_a_target_far_beyond_the_dearest_plan_is_refused_before_any_candidate_is_made(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MadeError(Exception):
        """A candidate is made."""

    def made(*_given: Any) -> None:
        raise MadeError

    monkeypatch.setattr(Candidates, "take", made)
    monkeypatch.setattr(column_cost, "read_share", lambda *_given: 0.2)
    ladder, original = llama.expansions.ladder(), Original(llama.original)
    per_column = column_cost.cost_of_a_column(original, torch.float32, CPU)
    cheapest, dearest = (1 + per_column * (plan.columns - plan.neurons) for plan in (ladder[0], ladder[-1]))
    farthest = 1 + 2 * (dearest - 1) + 3
    with pytest.raises(BadInput, match="cannot be reached") as caught:
        chosen(llama, target_slowdown=farthest + 0.1)
    assert f"about {cheapest:.2f} to {dearest:.2f} can, all neurons protected, going by bytes" in caught.value.cause
    assert "conversion.max_order" in caught.value.remedy
    with pytest.raises(MadeError):
        chosen(llama, target_slowdown=farthest - 0.1)


def test_seconds_are_scaled_but_for_those_of_the_head(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_original(llama.original, "float32", CPU)
    monkeypatch.setattr(timing._Clock, "seconds", lambda _self: 0.5)
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
    clock = timing._Clock(torch.device("cuda:1"))
    for _ in range(2):
        with clock.running():
            told.append(("step",))
    record, wait = ("record", "stream of cuda:1"), ("synchronize", "cuda:1")
    assert told == [wait, record, ("step",), record] * 2
    assert clock.seconds() == 3.0
    assert told[-1] == wait


def test_models_read_once_and_make_one_step_in_turn_and_only_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Model:
        """Takes its seconds for a step, and a hundred times as many for the prompt."""

        device = CPU
        config = SimpleNamespace(vocab_size=10)

        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def __call__(self, input_ids: torch.Tensor, past_key_values: Any = None, **_settings: Any) -> Any:
            nonlocal now
            steps = [*(past_key_values or []), input_ids.shape[1]]
            told.append(f"{self.name}{sum(steps)}")
            now += self.seconds * (100 if input_ids.shape[1] > 1 else 1)
            return SimpleNamespace(logits=torch.zeros(1, 1, 5), past_key_values=steps)

    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    sample = pairs_of(Model("a", 1.0), Model("b", 3.0), SETTINGS, 0)
    once = [f"{name}{tokens}" for tokens in (5, 6, 7, 8) for name in "ab"]
    assert told == ["a4", "b4", *once]
    assert [sample(), sample()] == [(4.0, 12.0)] * 2
    assert told == ["a4", "b4", *once * 3]


CACHES: dict[str, tuple[str, dict[str, Any]]] = {
    "of all tokens": ("llama", {}),
    "of a window": ("gemma3_text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "of a state": ("qwen3_5_text", {}),
}


@pytest.mark.parametrize("kind", CACHES)
def test_a_model_goes_on_from_the_same_place_as_often_as_it_is_asked(tmp_path: Path, kind: str) -> None:
    model_type, changes = CACHES[kind]
    model = load_original(save_tiny_model(tmp_path / "original", model_type, **changes), "float32", CPU)
    prompt = torch.randint(0, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    read = read_prompt(model, prompt)
    said = []
    for _ in range(2):
        behind = read.again()
        said.append([])
        for _ in range(6):
            said[-1].append(behind.token)
            assert decode_seconds([model], [behind], 1)[0] > 0
    assert all(torch.equal(*pair) for pair in zip(*said, strict=True))
    expected = model.generate(prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False)[:, 12:]
    assert torch.equal(torch.cat(said[0], dim=1), expected)


@pytest.mark.usefixtures("clock_of_bytes")
def test_two_calibrations_of_the_same_inputs_are_equal_in_all_that_no_clock_decides(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(llama) == (first := chosen(llama))
    by_bytes, slower = timing.decode_seconds, itertools.cycle([1.0, 1.003, 0.998])

    def disturbed(model: Any, behind: Behind, new_tokens: int) -> float:
        return next(slower) * by_bytes([model], [behind], new_tokens)[0]

    monkeypatch.setattr(timing, "decode_seconds", of_each(disturbed))
    other = chosen(llama)
    assert other.trials[0].seconds_bundle != first.trials[0].seconds_bundle
    timed = {"slowdown", "ci95", "seconds_original", "seconds_bundle"}
    assert other.trials[0].model_dump(exclude=timed) == first.trials[0].model_dump(exclude=timed)
    assert other.model_dump(exclude={"trials", "plan"}) == first.model_dump(exclude={"trials", "plan"})


def test_a_candidate_has_the_tensors_that_are_released_whatever_was_measured_before_it(
    gated_or_plain: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, fits = gated_or_plain, []
    fit = plan.fit_layer
    monkeypatch.setattr(plan, "fit_layer", lambda *given: fits.append(given) or fit(*given))
    expansions = sample.expansions
    ladder = expansions.ladder()
    killed = tmp_path / ".candidate-of-a-killed-run" / "tensor"
    killed.parent.mkdir()
    killed.write_bytes(bytes(8))
    candidates = Candidates(Original(sample.original), expansions, "float32", CPU, 2, 0, tmp_path)
    assert not killed.parent.exists()
    assert len(fits) == 4
    for dearer in (ladder[-1], ladder[1], sample.plan):
        candidates.take(dearer)
    assert len(fits) == 4
    released = load_bundle(sample.converted, CPU).state_dict()
    made = candidates._bundle.state_dict()
    assert made.keys() == released.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in released.items())
    candidates.again()
    again = candidates._bundle.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in released.items())
    candidates.forget_files()
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(again[name], tensor) for name, tensor in released.items())


@pytest.mark.usefixtures("clock_of_bytes")
def test_nothing_of_a_calibration_stays_on_the_disk_however_it_ends(llama: Sample, tmp_path: Path) -> None:
    calibrate(llama.subject, SETTINGS, CPU, 0, silent, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match=r"plan of `latency\.columns`"):
        calibrate(
            llama.subject,
            SETTINGS.model_copy(update={"columns": llama.expansions.ladder()[0].columns}),
            CPU,
            0,
            silent,
            tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_candidate_that_is_loaded_anew_is_not_made_anew(llama: Sample, tmp_path: Path) -> None:
    candidates_ = Candidates(Original(llama.original), llama.expansions, "float32", CPU, 2, 0, tmp_path)
    candidates_.take(llama.plan)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    candidates_.again()
    assert written == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    candidates_.forget_files()


def test_every_weight_that_is_timed_comes_from_the_disk(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []
    for room in (candidates, in_memory):
        monkeypatch.setattr(room, "leave_page_cache", lambda file: left.append(file.name))
    original = Original(llama.original)
    timed = Candidates(original, llama.expansions, "float32", CPU, 2, 0, tmp_path)
    timed.take(llama.plan)
    first = timed._bundle.state_dict()
    loading = ["model.safetensors", *(f"{mlp.path}.safetensors" for mlp in original.mlps)]
    assert left == loading
    timed.again()
    assert left == 2 * loading
    second = timed._bundle.state_dict()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
