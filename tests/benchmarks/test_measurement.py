"""What results say of their age: they are stale once their code or config has changed, and never fresh by mistake."""

from __future__ import annotations

import ast
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import measurement as room
from benchmarks.measurement import ENTRY, MEASURES, ROOT, Measured, age_of, ages, fresh_part, measurement, write_result
from taylor_ops.stages import AUDIT, CALIBRATE, CAPTURE, CONVERT, MARK, VALIDATE
from taylor_ops.storage.files import read_json
from taylor_ops.storage.stage_cache import code_of, sources_of

BENCHMARKS = ROOT / "benchmarks"
BEFORE = {"code": "0" * 64, "config": None, "date": "2026-01-02"}


def calls(path: Path) -> list[ast.Call]:
    """Every call of `write_result` in a module."""
    found = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
    return [call for call in found if isinstance(call.func, ast.Name) and call.func.id == "write_result"]


def test_every_benchmark_writes_its_result_with_its_age_and_under_its_name() -> None:
    named = {path.stem: [ast.literal_eval(call.args[1]) for call in calls(path)] for path in BENCHMARKS.glob("*.py")}
    assert {name for name, benchmarks in named.items() if benchmarks} == MEASURES.keys()
    assert all(set(benchmarks) == {name} for name, benchmarks in named.items() if benchmarks)
    # Only these write JSON: the evidence keeps its parts beside its scratch.
    others = {path.stem for path in BENCHMARKS.glob("*.py") if "canonical_json(" in path.read_text("utf-8")}
    assert others == {"measurement", "evidence"}


def test_every_result_says_of_which_benchmark_it_is() -> None:
    assert len(ages()) >= 15


def test_what_a_benchmark_measures_exists_and_names_the_stages_as_the_releases_do() -> None:
    for measured in MEASURES.values():
        assert len(measured.key()) == 64
        assert measured.config is None or (ROOT / measured.config).is_file()
    for name, stage in (
        ("audit", AUDIT),
        ("calibration", CALIBRATE),
        ("capture", CAPTURE),
        ("convert", CONVERT),
        ("evidence", MARK),
        ("exactness", VALIDATE),
    ):
        assert stage.work.__module__ in MEASURES[name].modules
    assert set(sources_of(*VALIDATE.modules(), *AUDIT.modules())) <= set(sources_of("taylor_ops.stages"))


def test_the_key_is_the_hash_of_the_stage_keys() -> None:
    assert MEASURES["capture"].key() == code_of(*CAPTURE.modules())


def test_a_package_stands_for_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Measured(("flows.run",)).key() == code_of(
        *(f"flows.run.{path.stem}" for path in sorted((ROOT / "flows" / "run").glob("*.py")) if path.stem != "__init__")
    )


def test_a_result_is_fresh_as_long_as_its_code_and_config_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "demo.yaml"
    config.write_text("# a demo\nname: demo\n", encoding="utf-8")
    monkeypatch.setitem(MEASURES, "audit", Measured(("taylor_ops.errors",), str(config)))
    result = {ENTRY: measurement("audit", begun=math.inf)}
    assert age_of(result).stale is None
    config.write_text("name:   demo  # with other comments\n", encoding="utf-8")
    assert age_of(result).stale is None
    config.write_text(yaml.safe_dump({"name": "other"}), encoding="utf-8")
    assert age_of(result).stale == f"{config} has changed"
    config.write_text("name: demo\n", encoding="utf-8")
    monkeypatch.setitem(MEASURES, "audit", Measured(("taylor_ops.progress",), str(config)))
    assert age_of(result).stale == "the code has changed"


def test_a_changed_module_makes_a_result_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "measured_by_this_test.py"
    module.write_text("ONE = 1\n", encoding="utf-8")
    monkeypatch.setitem(MEASURES, "audit", Measured((module.stem,)))
    result = {ENTRY: measurement("audit", begun=math.inf)}
    assert age_of(result).stale is None
    module.write_text("ONE = 2\n", encoding="utf-8")
    # Each command computes the key of its modules once.
    code_of.cache_clear()
    assert age_of(result).stale == "the code has changed"


def test_code_that_changed_while_it_was_measured_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "edited_by_this_test.py"
    module.write_text("ONE = 1\n", encoding="utf-8")
    os.utime(module, (1000.0, 1000.0))
    monkeypatch.setitem(MEASURES, "audit", Measured((module.stem,)))
    assert measurement("audit", begun=1001.0)["code"] == code_of(module.stem)
    edited = measurement("audit", begun=999.0)
    assert edited["code"] is None
    assert age_of({ENTRY: edited}).stale == "the code that it measured is not known"


def test_a_result_that_is_not_finished_is_stale_but_goes_on_with_the_same_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room.psutil.Process, "create_time", lambda _process: math.inf)
    path = tmp_path / "audit.json"
    assert fresh_part(path) == {}
    write_result(path, "audit", {"rows": [1]}, finished=False)
    assert age_of(read_json(path)).stale == "it is not finished"
    assert fresh_part(path)["rows"] == [1]
    write_result(path, "audit", {"rows": [1, 2]})
    assert age_of(read_json(path)).stale is None
    monkeypatch.setitem(MEASURES, "audit", Measured(("taylor_ops.progress",)))
    assert fresh_part(path) == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "does not say what it measured"),
        ({ENTRY: {"date": "2026-01-02"}}, "does not say what it measured"),
        ({ENTRY: BEFORE | {"benchmark": "unheard of"}}, "of a benchmark `unheard of`"),
    ],
)
def test_a_result_without_an_age_is_an_error(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        age_of(entry)
