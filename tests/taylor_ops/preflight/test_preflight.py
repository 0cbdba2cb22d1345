"""The preflight: what it estimates is near what a release takes, and what cannot work ends before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from taylor_ops.capture.capture import capture
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput
from taylor_ops.latency import calibrate, timing
from taylor_ops.model.original import Original
from taylor_ops.modeling.taylor_mlp import TaylorMLP
from taylor_ops.preflight import preflight, probe
from taylor_ops.source.resolve import resolve
from taylor_ops.stages import CAPTURE, RESOLVE, inputs_of_capture, inputs_of_resolve
from taylor_ops.storage.files import sha256_of_tree
from taylor_ops.storage.stage_cache import remember
from tests.support.clocks import of_each
from tests.support.preflight_example import config_of, estimate, shown
from tests.taylor_ops.conftest import CPU, Sample, seconds_of_bytes, silent

pytestmark = pytest.mark.usefixtures("clock_of_bytes")


def _layer_bytes(sample: Sample) -> int:
    return Original(sample.original).layer_bytes(torch.float32)


class Usage(NamedTuple):
    """A disk that is full."""

    total: int = 10**9
    used: int = 10**9
    free: int = 1000


def test_the_estimate_is_near_what_a_release_takes(llama: Sample, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    found = estimate(llama, artifacts)
    calibrated = calibrate.calibrate(llama.subject, _settings(12.0), CPU, 0, silent)
    assert found.sample is not None
    assert (found.neurons, found.layers, found.sample.layers, found.sample.layers_timed) == (96, 2, 2, 2)
    assert (found.sample.tokens, found.sample.total_tokens, found.sample.captured) == (1024, 16384, False)
    assert found.access == "local files"
    assert found.mean_order == pytest.approx(calibrated.plan.mean_order, rel=0.25)
    assert found.reachable[0] < 12 < found.reachable[1]
    assert found.read_bytes == sum(file.stat().st_size for file in llama.original.glob("*.safetensors"))
    assert found.disk_needed > 2 * found.bundle_bytes > 2 * found.read_bytes
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert not artifacts.exists()
    text = shown(found)
    assert "1,024 of 16,384 calibration tokens, extrapolated" in text
    assert f"{found.reachable[0]:.2f} to {found.reachable[1]:.2f}" in text


def test_a_target_below_what_protecting_all_costs_is_within_reach_where_neurons_may_be_in_clear(
    llama: Sample, tmp_path: Path
) -> None:
    every = estimate(llama, tmp_path)
    half = llama.conversion.model_copy(update={"min_protected": 0.5})
    target = (1 + every.cheapest_slowdown) / 2 + 1
    settings = {"target_slowdown": target, "prompt_tokens": 4}
    with pytest.raises(BadInput, match="all neurons protected"):
        estimate(llama, tmp_path, target_slowdown=target / 2)
    found = preflight.preflight(config_of(llama, conversion=half.model_dump(), latency=settings), tmp_path, silent)
    assert found.reachable[0] < target < found.cheapest_slowdown == pytest.approx(every.reachable[0], rel=0.01)
    assert 0.5 < found.protected < 1
    assert "% of 96 in 2 layers; the rest unprotected" in shown(found)
    assert "at least 50 % of neurons protected" in shown(found)
    tiny = {"target_slowdown": 1.01, "prompt_tokens": 4}
    config = config_of(llama, conversion=half.model_dump(), latency=tiny)
    with pytest.raises(BadInput, match=r"at least 50\.0% of neurons protected"):
        preflight.preflight(config, tmp_path, silent)


def test_a_device_that_has_a_target_and_is_not_here_is_refused_before_the_probe(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(preflight, "known_source", None)
    settings = {"prompt_tokens": 4, "devices": [{"device": "cuda", "target_slowdown": 3.0}]}
    with pytest.raises(BadInput, match="no GPU is visible here"):
        preflight.preflight(config_of(llama, latency=settings), tmp_path, silent)


def _settings(target: float) -> calibrate.Latency:
    return calibrate.Latency(target_slowdown=target, prompt_tokens=4)


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
    monkeypatch.setattr(probe, "_SMALL_BYTES", 0)
    monkeypatch.setattr(probe, "_LAYERS", 1)
    large = estimate(llama, tmp_path)
    assert small.sample is not None
    assert large.sample is not None
    assert (small.sample.layers, large.sample.layers, large.layers) == (2, 1, 2)
    assert large.sample.layers_timed == 1
    assert large.reachable[0] == pytest.approx(small.reachable[0], rel=0.5)
    assert large.neurons == small.neurons
    assert "1 of 2 layers" in shown(large)


def test_orders_grow_with_the_text_as_they_did_from_half_of_the_sample_to_all(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = estimate(llama, tmp_path)
    monkeypatch.setattr(probe, "_TOKENS", 8192)
    more = estimate(llama, tmp_path)
    assert found.cheapest is not None
    assert more.cheapest is not None
    assert found.cheapest == pytest.approx(more.cheapest, rel=0.05)


def test_ranges_of_an_earlier_run_are_used_as_long_as_they_are_current(llama: Sample, tmp_path: Path) -> None:
    config = config_of(llama)
    stages = tmp_path / config.name / "stages"
    source = resolve(config.source, stages / "resolve", silent)
    inputs = inputs_of_resolve(config, stages)
    remember(stages / "resolve.json", RESOLVE.key(inputs), source, stages / "resolve")
    done = capture(llama.original, "float32", config.calibration, CPU, stages / "capture", silent)
    captured = inputs_of_capture(config, source, CPU)
    remember(stages / "capture.json", CAPTURE.key(captured), done, stages / "capture")
    before = sha256_of_tree(tmp_path)
    found = preflight.preflight(config, tmp_path, silent)
    expansions = Subject(Original(llama.original), stages / "capture" / done.file, config.conversion).expansions()
    assert found.sample is not None
    assert found.sample.captured
    assert found.sample.tokens == done.tokens
    assert found.cheapest == pytest.approx(expansions.ladder()[0].mean_order)
    assert found.seconds["capture"] == 0
    assert "an earlier run captured" in shown(found)
    other = config.model_copy(update={"calibration": config.calibration.model_copy(update={"tokens": 2048})})
    again = preflight.preflight(other, tmp_path, silent)
    assert again.sample is not None
    assert not again.sample.captured
    assert sha256_of_tree(tmp_path) == before


class Clock:
    """Decode steps that take as long as their bytes say, for a Taylor model times a factor, the next in each pair."""

    def __init__(self, factors: Sequence[float]) -> None:
        self._factors = cycle(factors)

    def __call__(self, model: Any, _behind: timing.Behind, new_tokens: int) -> float:
        taylor = any(isinstance(module, TaylorMLP) for module in model.modules())
        return seconds_of_bytes(model, new_tokens) * (next(self._factors) if taylor else 1)


def test_a_busy_machine_is_named_and_refuses_no_target_that_bytes_allow(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = estimate(llama, tmp_path)
    assert quiet.sample is not None
    assert not quiet.sample.busy
    assert quiet.sample.pairs == 2 * 5
    target = quiet.reachable[1] * 0.9
    monkeypatch.setattr(timing, "decode_seconds", of_each(Clock([0.1, 0.9, 0.2])))
    busy = estimate(llama, tmp_path, target_slowdown=target)
    assert busy.sample is not None
    assert busy.sample.busy
    assert busy.sample.pairs == 2 * 15
    assert busy.reachable[1] < target
    assert "too busy" in shown(busy)
    # The same figures from a machine that is steady are believed.
    monkeypatch.setattr(timing, "decode_seconds", of_each(Clock([0.2])))
    with pytest.raises(BadInput, match="cannot be reached"):
        estimate(llama, tmp_path, target_slowdown=target)


def test_the_head_is_counted_once_however_few_layers_are_timed(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_head(_head: Any, _batch_size: int, new_tokens: int) -> float:
        return new_tokens * 1e-4

    without = estimate(llama, tmp_path)
    monkeypatch.setattr(probe, "head_seconds", slow_head)
    with_head = estimate(llama, tmp_path)
    layers = _layer_bytes(llama) / 1e9
    slower = 1 + (without.reachable[0] - 1) * layers / (layers + 1e-4)
    assert with_head.reachable[0] == pytest.approx(slower, rel=1e-3)


@pytest.mark.parametrize(("tolerance", "within"), [(0.03, False), (0.5, True)])
def test_a_target_is_within_reach_where_its_band_is(
    llama: Sample, tmp_path: Path, tolerance: float, within: bool
) -> None:
    reachable = estimate(llama, tmp_path).reachable
    target = 1.6 * reachable[1]
    if within:
        assert estimate(llama, tmp_path, target_slowdown=target, tolerance=tolerance).target == target
    else:
        with pytest.raises(BadInput, match="cannot be reached"):
            estimate(llama, tmp_path, target_slowdown=target, tolerance=tolerance)


def test_what_is_fixed_beside_the_columns_is_no_cost_of_a_column(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = estimate(llama, tmp_path)

    def with_overhead(model: Any, _behind: timing.Behind, new_tokens: int) -> float:
        taylor = any(isinstance(module, TaylorMLP) for module in model.modules())
        return seconds_of_bytes(model, new_tokens) + taylor * 0.8 * new_tokens * _layer_bytes(llama) / 1e9

    monkeypatch.setattr(timing, "decode_seconds", of_each(with_overhead))
    found = estimate(llama, tmp_path)
    assert found.reachable == pytest.approx([slowdown + 0.8 for slowdown in bare.reachable], rel=0.01)
    with pytest.raises(BadInput, match="cannot be reached"):
        estimate(llama, tmp_path, target_slowdown=1.3 * found.reachable[1])


@pytest.mark.parametrize("missing", ["memory", "ladder"])
def test_without_room_or_a_dearer_plan_only_the_cheapest_is_timed(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    both = estimate(llama, tmp_path)
    if missing == "memory":
        monkeypatch.setattr(probe, "bytes_side_by_side", lambda *_given: 10**15)
    else:
        monkeypatch.setattr(probe, "_LEAST_DEARER", 1000)
    one = estimate(llama, tmp_path)
    assert both.sample is not None
    assert one.sample is not None
    assert (both.sample.pairs, one.sample.pairs) == (10, 5)
    assert one.reachable[0] == pytest.approx(both.reachable[0], rel=0.01)


def test_a_source_that_is_not_there_is_refused(llama: Sample, tmp_path: Path) -> None:
    shutil.copytree(llama.original, tmp_path / "broken")
    next((tmp_path / "broken").glob("*.safetensors")).unlink()
    broken = Sample(**{**vars(llama), "original": tmp_path / "broken"})
    with pytest.raises(BadInput):
        estimate(broken, tmp_path)


def test_a_text_that_is_not_there_is_refused_before_the_probe(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "orders_of", lambda *_arguments: pytest.fail("probed"))
    texts = {"prompts": [{"name": "mine", "file": str(tmp_path / "missing.jsonl")}]}
    with pytest.raises(BadInput, match=r"missing\.jsonl"):
        preflight.preflight(config_of(llama, exactness=texts), tmp_path, silent)


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("---\nlicense: llama3\n---\n", "llama3"),
        ("no metadata", "none stated"),
        ("---\nlicense: [\n---\n", "not known: the metadata of README.md cannot be read"),
    ],
)
def test_the_licence_that_the_source_states_stands_beside_that_of_the_card(
    llama: Sample, tmp_path: Path, card: str, stated: str
) -> None:
    folder = shutil.copytree(llama.original, tmp_path / "with-card")
    (folder / "README.md").write_text(card, encoding="utf-8")
    found = estimate(Sample(**{**vars(llama), "original": folder}), tmp_path / "artifacts")
    assert found.source_license == stated
    assert f"{stated}; on the card: mit" in " ".join(shown(found).split())
