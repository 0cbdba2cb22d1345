"""Measuring a night: what is fresh is left alone, a kill loses one benchmark, a noisy machine times nothing."""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import pytest

from benchmarks.measure import LIMIT, LOOKS, RUNS, Load, Run, load, measure
from benchmarks.measurement import MEASURES, ROOT, ages, write_result

QUIET = Load(LIMIT / 2, ())
NOISY = Load(0.9, (("python (7)", 0.5),))
THREE = (
    Run("one.json", "startup", 1),
    Run("two.json", "publish", 1, data=True),
    Run("three.json", "capture", 1, timed=False),
)


class Machine:
    """Benchmarks that write at once, and a processor that others use as given, look by look."""

    def __init__(self, results: Path, *loads: Load) -> None:
        self.results, self.loads = results, list(loads)
        self.ran: list[tuple[str, Path | None]] = []
        self.failing: set[str] = set()
        self.killed_at = ""
        self.looks = 0

    def measured(self, run: Run, data: Path | None) -> int:
        if run.result == self.killed_at:
            raise KeyboardInterrupt
        self.ran.append((run.result, data))
        if run.result in self.failing:
            return 3
        write_result(self.results / run.result, run.benchmark, {})
        return 0

    def looked(self) -> Load:
        self.looks += 1
        return self.loads.pop(0) if self.loads else QUIET

    def measure(self, data: Path | None = Path("data")) -> list[str]:
        return measure(THREE, data, self.results, self.measured, self.looked)


@pytest.fixture(autouse=True)
def _code_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that was edited while the tests run still counts as older than they are."""
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: math.inf)


def test_everything_is_measured_once_in_order_with_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(tmp_path)
    assert machine.measure() == []
    assert [result for result, _ in machine.ran] == ["one.json", "two.json", "three.json"]
    assert "2 of 3: two.json, about 1 minutes" in capsys.readouterr().out
    assert machine.measure() == []
    assert len(machine.ran) == 3
    assert "2 of 3: two.json is fresh" in capsys.readouterr().out


def test_after_a_kill_it_goes_on_with_what_is_not_measured(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.killed_at = "two.json"
    with pytest.raises(KeyboardInterrupt):
        machine.measure()
    machine.killed_at = ""
    assert machine.measure() == []
    assert [result for result, _ in machine.ran] == ["one.json", "two.json", "three.json"]


def test_a_result_that_was_only_begun_is_measured(tmp_path: Path) -> None:
    write_result(tmp_path / "one.json", "startup", {}, finished=False)
    machine = Machine(tmp_path)
    assert machine.measure() == []
    assert machine.ran[0][0] == "one.json"


def test_a_result_of_other_code_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path)
    machine.measure()
    monkeypatch.setitem(MEASURES, "publish", MEASURES["capture"])
    machine.measure()
    assert [result for result, _ in machine.ran[3:]] == ["two.json"]


def test_a_benchmark_that_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.failing = {"one.json"}
    assert machine.measure() == ["one.json: benchmarks.startup ended with 3"]
    assert [result for result, _ in machine.ran] == ["one.json", "two.json", "three.json"]


def test_without_data_the_others_are_measured_and_it_is_said(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.measure(data=None) == ["two.json needs --data FOLDER"]
    assert [result for result, _ in machine.ran] == ["one.json", "three.json"]


def test_a_machine_that_stays_noisy_times_nothing_and_says_who_uses_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, *[NOISY] * LOOKS)
    (said,) = machine.measure()
    assert machine.ran == []
    assert said.startswith("this machine is too noisy to time one.json, two.json, three.json: ")
    assert said.endswith(
        "others use 0.90 cores: python (7) 0.50, what no process here shows, as a neighbour of this machine, 0.40"
    )


def test_noise_that_passes_is_waited_for_and_what_is_not_timed_does_not_wait(tmp_path: Path) -> None:
    machine = Machine(tmp_path, *[NOISY] * (LOOKS - 1), QUIET, QUIET, *[NOISY] * LOOKS)
    assert machine.measure() == []
    assert machine.looks == LOOKS + 1


def test_code_that_changes_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: 0.0)
    machine = Machine(tmp_path)
    assert "one.json: the code changed while it was measured" in machine.measure()


def test_the_load_of_others_counts_what_the_machine_did_and_not_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, used = iter([100.0, 109.0]), iter([(0.0, 0.0), (3.0, 4.0)])
    own = psutil.Process().pid

    def processes() -> dict[int, tuple[str, float]]:
        mine, other = next(used)
        return {own: ("this", mine), own + 10**6: ("other (9)", other)}

    monkeypatch.setattr("benchmarks.measure._busy", lambda: next(busy))
    monkeypatch.setattr("benchmarks.measure._used", processes)
    monkeypatch.setattr("benchmarks.measure.time.sleep", lambda _seconds: None)
    assert load(10.0) == Load(0.6, (("other (9)", 0.4),))


def test_the_runs_are_every_committed_result_that_this_machine_can_measure() -> None:
    results = [run.result for run in RUNS]
    assert len(set(results)) == len(results)
    assert {run.benchmark for run in RUNS} == MEASURES.keys() - {"gpu"}
    assert set(results) <= ages().keys()
    # One of an earlier version, for comparison, one of attacks that train, and one of a GPU.
    others = {"exactness-float32-limit-110.json", "audit-training.json", "gpu.json"}
    assert ages().keys() - set(results) <= others


def test_make_measures_with_the_data_that_it_is_given() -> None:
    target = (ROOT / "Makefile").read_text("utf-8").split("\nmeasure:")[1].split("\n\n")[0]
    assert "$(BIN)/python -m benchmarks.measure $(if $(DATA),--data $(DATA))" in target
