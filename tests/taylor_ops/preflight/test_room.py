"""The preflight after its probe: room on the disk and in memory, a plan that is named, and time for every stage."""

from __future__ import annotations

import errno
import itertools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.latency import calibrate, candidates
from taylor_ops.latency.column_cost import Cost
from taylor_ops.machine import devices
from taylor_ops.model.original import Original
from taylor_ops.preflight import preflight
from taylor_ops.preflight.known_source import KnownSource, known_source
from taylor_ops.preflight.probe import Orders, Times
from taylor_ops.preflight.stage_seconds import seconds_by_stage
from taylor_ops.series.plan import Plan
from tests.support.preflight_example import config_of, estimate, shown
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import CPU, Sample, silent

NEURONS = 96


class Usage(NamedTuple):
    """A disk that is full."""

    total: int = 10**9
    used: int = 10**9
    free: int = 1000


@pytest.fixture(scope="module")
def ladder(llama: Sample) -> list[Plan]:
    return llama.expansions.ladder()


@pytest.fixture
def orders(llama: Sample, ladder: list[Plan]) -> Orders:
    """What a probe of the whole text would find."""
    least, most = (float(rung.columns) for rung in (ladder[0], ladder[-1]))
    return Orders(llama.expansions, ladder, ladder[0], least, least, most, 2, 100, 100, 0.0, 3.0)


@pytest.fixture
def times(ladder: list[Plan]) -> Times:
    """A machine on which the middle of the ladder has a slowdown of 12; a step takes 20 ms, one of a batch 90 ms."""
    per_column = (12 - 1) / (ladder[len(ladder) // 2].columns - NEURONS)
    cost = Cost(per_column)
    return Times(cost, (cost,), False, 2, 5, 0.02, 1, 0.09, 36, 1e9)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, orders: Orders, times: Times) -> None:
    """Stands in for the probe."""
    monkeypatch.setattr(preflight, "orders_of", lambda *_given: orders)
    monkeypatch.setattr(preflight, "times_of", lambda *_given: times)


@pytest.mark.usefixtures("probed")
def test_a_disk_without_room_is_refused(llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage())
    with pytest.raises(BadInput, match=r"needs about \d\.\d MB of disk .*, 0\.0 MB are free"):
        estimate(llama, tmp_path)


@pytest.mark.usefixtures("probed", "clock_of_bytes")
def test_memory_must_have_room_for_the_candidates_that_the_calibration_may_want(
    llama: Sample, ladder: list[Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[int] = []
    usual = candidates.layers_that_fit

    def noted(source: Original, plan: Plan, dtype: torch.dtype, room: int) -> int:
        rooms.append(candidates.bytes_side_by_side(source, plan.columns, dtype, source.period))
        return usual(source, plan, dtype, room)

    monkeypatch.setattr(calibrate, "layers_that_fit", noted)
    settings = config_of(llama).latency
    calibrate.calibrate(llama.subject, settings, CPU, 0, silent)
    needed = estimate(llama, tmp_path).least_bytes
    # Between two rungs: the preflight counts columns, of which no plan need have just as many.
    step = max(dearer.columns - rung.columns for rung, dearer in itertools.pairwise(ladder))
    assert 0 <= needed - rooms[0] <= 4 * 32 * step
    monkeypatch.setattr(preflight, "free_memory", lambda _device: int(needed / devices._ROOM) + 2)
    assert estimate(llama, tmp_path).least_bytes == needed
    monkeypatch.setattr(preflight, "free_memory", lambda _device: needed)
    with pytest.raises(BadInput, match="of memory for weights"):
        estimate(llama, tmp_path)


@pytest.mark.usefixtures("probed")
def test_memory_is_that_which_is_free_before_the_probe_takes_its_own(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10**12]
    usual = preflight.orders_of

    def takes_memory(*given: Any) -> Any:
        free[0] = 1000
        return usual(*given)

    monkeypatch.setattr(preflight, "free_memory", lambda _device: free[0])
    monkeypatch.setattr(preflight, "orders_of", takes_memory)
    assert estimate(llama, tmp_path).memory_free == 10**12


@pytest.mark.usefixtures("probed")
def test_what_the_probe_writes_lies_beside_the_artifacts_and_takes_nothing_of_the_disk_that_is_told(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Path] = []
    usual, used = preflight.known_source, shutil.disk_usage

    def dequantised(config: ReleaseConfig, artifacts: Path, device: torch.device, scratch: Path) -> KnownSource:
        places.append(scratch)
        monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage())
        return usual(config, artifacts, device, scratch)

    monkeypatch.setattr(preflight, "known_source", dequantised)
    found = estimate(llama, tmp_path / "artifacts")
    monkeypatch.setattr(shutil, "disk_usage", used)
    assert found.disk_free > Usage().free
    assert places[0].is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_in_two_lines(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(prefix: str, dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir / f"{prefix}1"))

    monkeypatch.setattr(preflight.tempfile, "TemporaryDirectory", closed)
    with pytest.raises(WorkFailed, match=rf"cannot write {tmp_path}.*: Permission denied"):
        estimate(llama, tmp_path / "artifacts")


def test_an_audit_that_rebuilds_takes_disk_for_the_original_and_for_experts_that_memory_does_not_hold(
    llama: Sample, tmp_path: Path
) -> None:
    mixture = save_tiny_model(tmp_path / "mixture", "mixtral")
    source, here = Original(mixture), known_source(mixture_config(llama, mixture), tmp_path, CPU, tmp_path / "scratch")
    own, experts = source.bytes(torch.float32), source.saved_again(torch.float32)
    assert 0 < experts < own
    small, large = 1, 10**12

    def needed(bundle: int, memory: int, **audit: Any) -> int:
        return preflight._disk(mixture_config(llama, mixture, **audit), here, bundle, memory)

    states = needed(0, large, rebuild=[])
    assert needed(3 * own, large) == needed(3 * own, small) == states + 6 * own
    assert needed(own // 2, large) == states + own // 2 + own
    assert needed(own // 2, small) == states + own // 2 + own + experts
    assert needed(own // 2, small, rebuild=[]) == states + own // 2 * 2


def mixture_config(llama: Sample, folder: Path, **audit: Any) -> ReleaseConfig:
    return config_of(llama, source={"kind": "folder", "path": str(folder)}, audit=audit)


@pytest.mark.usefixtures("probed")
def test_a_plan_that_is_named_by_its_columns_is_all_that_is_within_reach(
    llama: Sample, ladder: list[Plan], tmp_path: Path
) -> None:
    free = estimate(llama, tmp_path)
    assert not free.pinned
    assert free.reachable[0] < 12 < free.reachable[1]
    pinned = estimate(llama, tmp_path, columns=ladder[len(ladder) // 2].columns)
    assert pinned.pinned
    assert pinned.reachable == (pytest.approx(12), pytest.approx(12))
    assert "about 12.00 alone, by the plan that `latency.columns` names" in shown(pinned)
    assert pinned.seconds["calibrate"] < free.seconds["calibrate"]
    cheapest = ladder[0].columns
    with pytest.raises(
        BadInput, match=rf"about \d\.\d\d can, by the plan of `latency\.columns` {cheapest:,}"
    ) as caught:
        estimate(llama, tmp_path, columns=cheapest)
    assert "leave `latency.columns` out" in caught.value.remedy


def test_time_is_counted_for_prompts_other_shapes_devices_and_attacks(
    llama: Sample, orders: Orders, times: Times, tmp_path: Path
) -> None:
    assert [times.forward(tokens) for tokens in (1, 36, 71)] == pytest.approx([0.02, 0.09, 0.16])
    config = config_of(llama)
    here = known_source(config, tmp_path, CPU, tmp_path / "source")

    def seconds(audit: dict[str, Any] | None = None, **changes: Any) -> dict[str, float]:
        latency = config.latency.model_dump() | {"also": []} | changes
        changed = config.model_dump() | {"latency": latency, "audit": audit or {}}
        return seconds_by_stage(ReleaseConfig.model_validate(changed), here, orders, times, 10**9)

    usual = seconds()
    # The ladder, and two candidates, the second in five loadings: each is made and reads 4 tokens; its pairs and a
    # warm-up decode 4.
    timed = 6 * (times.forward(4) + (11 + 1) * 4 * times.forward(1))
    assert usual["calibrate"] == pytest.approx(3 + 2 + (1 + 12) * timed)
    longer = 100 - 5 * (1 + 12) * 11 * 4 * times.forward(1)
    assert seconds(min_seconds=100.0)["calibrate"] == pytest.approx(usual["calibrate"] + longer, rel=0.04)
    assert seconds(prompt_tokens=4000)["calibrate"] > 2 * usual["calibrate"]
    also = [{"batch_size": 2, "prompt_tokens": 8}]
    shapes = seconds(also=also)["transfer"]
    both = seconds(also=also, devices=[{"device": "cpu", "target_slowdown": 12.0}])["transfer"]
    assert usual["transfer"] == 0 < shapes < both
    for attack in ("least_squares", "distillation", "warm_distillation", "fine_tuning", "lora"):
        assert seconds({"attacks": [*config.audit.attacks, attack]})["audit"] > usual["audit"] + 1
    assert seconds({"attacks": []})["audit"] == 0
    assert seconds({"rebuild": []})["audit"] < usual["audit"]


@pytest.mark.usefixtures("probed")
def test_disk_and_time_of_a_marked_model_are_counted(llama: Sample, tmp_path: Path) -> None:
    nobody = estimate(llama, tmp_path)
    config = config_of(llama, evidence={"recipient": "acme", "key": "OWNERS_KEY"})
    marked = preflight.preflight(config, tmp_path, silent)
    assert marked.disk_needed == nobody.disk_needed + nobody.bundle_bytes
    assert {*marked.seconds} - {*nobody.seconds} == {"mark"}
