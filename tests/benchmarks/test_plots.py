"""Plots of the benchmarks: each is what its result gives, and a document shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.figures import DOCUMENTS, RESULTS
from benchmarks.plots import FOLDER, PLOTS, plots
from taylor_ops.storage.files import canonical_json, read_json

MEASURED = [name for name in PLOTS if (RESULTS / f"{name}.json").is_file()]
SHOWN_IN = {"publish": "publishing.md"}
IMAGE = re.compile(r"!\[(?P<seen>[^\]]+)\]\(plots/(?P<name>\w+)\.svg\)")
CAPTURE = {
    "goal": 0.9,
    "ratio": {"median": 0.95, "rounds": [0.94, 0.95, 0.97]},
    "ratio_with_loading": {"median": 1.1, "rounds": [1.0, 1.1, 1.2]},
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return plots()


def words(svg: str) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def drawn_from(folder: Path, name: str, result: Any) -> str:
    (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return plots(folder)[name]


def test_every_plot_is_what_its_result_gives(drawn: dict[str, str]) -> None:
    there = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if "overview" not in path.stem}
    assert there.keys() == drawn.keys() == set(MEASURED)
    assert [name for name in drawn if there[name] != drawn[name]] == []


@pytest.mark.parametrize("name", MEASURED)
def test_one_changed_sample_gives_another_plot(drawn: dict[str, str], tmp_path: Path, name: str) -> None:
    changed = _with_its_last_sample_longer(read_json(RESULTS / f"{name}.json"), name)
    assert drawn_from(tmp_path, name, changed) != drawn[name]


def _with_its_last_sample_longer(result: Any, name: str) -> Any:
    samples: dict[str, Callable[[], Any]] = {
        "forward": lambda: result["stacks"]["SmolLM2-135M"]["seconds"]["peer"],
        "calibration": lambda: [row for row in result["targets"] if "again" in row][-1]["again"]["seconds_bundle"],
        "memory": lambda: result["runs"]["32 layers"]["peak_bytes"],
        "convert": lambda: result["ratio"]["written"]["rounds"],
        "capture": lambda: result["ratio"]["rounds"],
        "distributed": lambda: result["seconds"]["2"],
        "publish": lambda: result["speed"]["rounds"],
    }
    changed = samples[name]()
    changed["convert" if isinstance(changed, dict) else -1] *= 1.01
    return result


@pytest.mark.parametrize("name", MEASURED)
def test_a_document_shows_the_plot_and_says_what_is_seen(name: str) -> None:
    text = (DOCUMENTS / SHOWN_IN.get(name, "performance.md")).read_text(encoding="utf-8")
    [seen] = [match["seen"] for match in IMAGE.finditer(text) if match["name"] == name]
    assert len(seen) > 20


def test_no_document_shows_a_plot_that_is_not_there() -> None:
    for path in DOCUMENTS.glob("*.md"):
        assert {match["name"] for match in IMAGE.finditer(path.read_text(encoding="utf-8"))} <= set(MEASURED)


def test_axes_have_units_and_goals_have_names(drawn: dict[str, str]) -> None:
    for name, svg in drawn.items():
        assert any(re.search(r"seconds|GB|%|= 1", word) for word in words(svg)), name
        assert any(word.startswith("goal: ") for word in words(svg)), name


def test_a_result_that_is_not_there_has_no_plot(tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text(canonical_json(CAPTURE), encoding="utf-8")
    assert plots(tmp_path).keys() == {"capture"}


def test_capture_is_drawn_beside_its_goal(tmp_path: Path) -> None:
    svg = drawn_from(tmp_path, "capture", CAPTURE)
    assert {"model loaded before", "loading counted", "goal: at least 0.9"} <= set(words(svg))


def test_calibrations_that_were_refused_are_named(tmp_path: Path) -> None:
    result = read_json(RESULTS / "calibration.json")
    first = result["targets"][0]
    unconfirmed = {key: value for key, value in first.items() if key != "again"} | {"refused": "not confirmed: noise"}
    refused = {"target": 4.0, "seconds": 9.0, "refused": "the machine is too noisy"}
    svg = drawn_from(tmp_path, "calibration", result | {"targets": [unconfirmed], "under_load": refused})
    assert {f"{first['target']:g}", "4, under load", "not confirmed", "no result: refused", "calibrated"} <= set(
        words(svg)
    )
    assert "in a fresh process" not in words(svg)


def test_a_calibration_under_load_that_succeeded_is_a_row_like_the_others(tmp_path: Path) -> None:
    result = read_json(RESULTS / "calibration.json")
    one = result["targets"][0]
    svg = drawn_from(tmp_path, "calibration", result | {"targets": [one], "under_load": one})
    assert {f"{one['target']:g}", f"{one['target']:g}, under load", "in a fresh process"} <= set(words(svg))
