"""The benchmark of a release: each stage stands beside the sum of what it needs, timed on the finished release."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import floors as room
from benchmarks import release as benchmark
from benchmarks.audit import released
from benchmarks.floors import Batch, Floors, floor_of
from benchmarks.release import beside_floors
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.read import read
from taylor_ops.storage.files import canonical_json, read_json, write_text
from taylor_ops.texts.prompts import prompts
from tests.support.tiny_models import save_tiny_model, tokenizer
from tests.support.tiny_release import write_tiny_config

RECORDED = [
    {"prompt": "one", "prompt_tokens": [1, 2, 3], "new_tokens": [4, 5]},
    {"prompt": "two", "prompt_tokens": [6], "new_tokens": [7, 8]},
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseConfig, Path]:
    """The config and the artifacts of a finished release of a tiny model, as far as floors read them."""
    place = tmp_path_factory.mktemp("release")
    config = read(write_tiny_config(place / "tiny.yaml", save_tiny_model(place / "model"))).config
    original, bundle = released(config, place / "made")
    artifacts = place / "artifacts" / "tiny"
    bundle.rename(_parent(artifacts / "1.0.0" / "bundle"))
    write_text(
        artifacts / "1.0.0" / "bundle" / "taylor_release.json",
        canonical_json({"format": 1, "files": {}, "exactness": {"continuations": RECORDED}}),
    )
    write_text(artifacts / "stages" / "resolve.json", canonical_json({"record": {"folder": str(original)}}))
    timed = {"trials": [{"slowdown": 9, "seconds_original": [1.0, 2.0], "seconds_bundle": [[4.0], [8.0]]}]}
    write_text(artifacts / "stages" / "calibrate.json", canonical_json({"record": timed}))
    return config, place / "artifacts"


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    return path


def test_every_stage_has_what_it_needs_and_nothing_is_left_behind(
    finished: tuple[ReleaseConfig, Path], tmp_path: Path
) -> None:
    config, artifacts = finished
    needs = Floors(config, artifacts, tmp_path).measured()
    assert list(needs) == [
        "resolve",
        "capture",
        "calibrate + transfer",
        "convert",
        "validate",
        "audit",
        "assemble",
        "leaks",
        "publish",
        "verify",
    ]
    assert all(samples and min(samples) > 0 for stage in needs.values() for samples in stage.values())
    assert needs["calibrate + transfer"]["the decode steps that were timed"] == [15.0]
    assert floor_of(needs["calibrate + transfer"]) > 15
    assert list(needs["validate"]) == [
        "pass of the original",
        "pass of the original for the noise floor",
        "pass of the bundle",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_passes_of_validate_read_every_prompt_and_as_many_tokens_as_are_compared(
    finished: tuple[ReleaseConfig, Path], tmp_path: Path
) -> None:
    config, artifacts = finished
    batches = Floors(config, artifacts, tmp_path)._held_out()
    asked = [one for source in config.exactness.prompts for one in prompts(source, tokenizer())]
    new = config.exactness.new_tokens
    assert sum(int(batch.mask.sum()) for batch in batches) == sum(len(one.tokens) + new for one in asked)
    assert {batch.logits for batch in batches} == {new}
    assert sum(len(batch.ids) for batch in batches) == len(asked) == 8


def test_the_passes_of_verify_read_the_recorded_continuations_as_one_batch(
    finished: tuple[ReleaseConfig, Path], tmp_path: Path
) -> None:
    config, artifacts = finished
    (batch,) = Floors(config, artifacts, tmp_path)._recorded()
    assert batch.ids.tolist() == [[0, 0, 6, 7, 8], [1, 2, 3, 4, 5]]
    assert batch.mask.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert batch.logits == 2


def test_texts_of_like_length_run_together_and_a_long_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BATCH_TOKENS", 8)
    texts = [(1,) * length for length in (20, 2, 3, 4, 2)]
    batches = room._batches(texts, 0, room.torch.device("cpu"))
    assert [tuple(batch.ids.shape) for batch in batches] == [(2, 2), (2, 4), (1, 20)]


def test_a_pass_without_logits_runs_the_decoder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        asked: dict[str, Any] | None = None

        def base_model(self, **given: Any) -> None:
            self.asked = given

    model, ids = Model(), room.torch.ones(1, 2, dtype=room.torch.long)
    Batch(ids, ids, 0).run(model)
    assert model.asked is not None
    assert model.asked["use_cache"] is False


def test_what_is_written_for_a_floor_has_the_bytes_that_the_stage_leaves(
    finished: tuple[ReleaseConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, artifacts = finished
    like = tmp_path / "like"
    like.write_bytes(bytes(room._PIECE + 3))
    seen: list[list[int]] = []
    timed = room._timed

    def watched(work: Any) -> float:
        seconds = timed(work)
        seen.append([path.stat().st_size for path in (tmp_path / "scratch").rglob("*") if path.is_file()])
        return seconds

    monkeypatch.setattr(room, "_timed", watched)
    (tmp_path / "scratch").mkdir()
    Floors(config, artifacts, tmp_path / "scratch")._write([like])
    assert seen == [[room._PIECE + 3]] * room.TIMES


# The result

COSTS = {
    "resolve": {"seconds": 3.0, "peak_rss_bytes": 5, "cached": False},
    "calibrate": {"seconds": 40.0, "peak_rss_bytes": 7, "cached": False},
    "transfer": {"seconds": 20.0, "peak_rss_bytes": 9, "cached": False},
    "approve": {"seconds": 0.5, "peak_rss_bytes": 1, "cached": False},
}
NEEDS = {
    "resolve": {"read": [1.0, 0.5, 9.0]},
    "calibrate + transfer": {"load": [5.0], "steps": [10.0]},
    "verify": {"load": [1.0]},
}


def test_a_stage_stands_beside_the_sum_of_the_medians_of_what_it_needs() -> None:
    rows = beside_floors(COSTS, NEEDS)
    assert {name: (row["seconds"], row["floor"], row["ratio"]) for name, row in rows.items()} == {
        "resolve": (3.0, 1.0, 3.0),
        "calibrate + transfer": (60.0, 15.0, 4.0),
        "approve": (0.5, 0, None),
    }
    assert rows["calibrate + transfer"]["peak_rss_bytes"] == 9
    assert rows["resolve"]["samples"] == {"read": [1.0, 0.5, 9.0]}


class Releases:
    """`make release` without its work: counts the runs, and leaves a record and what is published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[str, str]] = []
        monkeypatch.setattr(benchmark, "_release", self.release)
        monkeypatch.setattr(Floors, "measured", lambda _floors: NEEDS)
        monkeypatch.setattr(benchmark, "loadings", self.loadings)

    def loadings(self, original: Path, bundle: Path, target: float, number: int) -> list[dict[str, Any]]:
        assert (original, bundle.name, target) == (Path("/the/original"), "bundle", 3.0)
        return [{"slowdown": 2.8 + loading / 10, "ci95": [2.7, 3.3]} for loading in range(number)]

    def release(self, artifacts: Path, config: Path) -> tuple[float, dict[str, Any]]:
        version = yaml.safe_load(config.read_text("utf-8"))["version"]
        self.ran.append((artifacts.name, version))
        write_text(artifacts / "hub" / "file", "the same")
        write_text(artifacts / "demo" / "stages" / "resolve.json", '{"record": {"folder": "/the/original"}}')
        compared = {"bundle": {"prompts": 2, "prompts_equal": 2}}
        again = self.ran.count((artifacts.name, version)) > 1
        return 10.0 * len(self.ran), {
            "name": "demo",
            "version": version,
            "bundle": {"path": "bundle"},
            "slowdown": {"device": "a device", "achieved": 3.0, "target": 3.0, "ci95": [2.85, 3.15]},
            "coverage": {"mean_order": 2.0},
            "stages": {name: cost | {"cached": again} for name, cost in COSTS.items()},
            "exactness": {"project": compared, "gsm8k": compared},
        }


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["release", *arguments])
    benchmark.main()


def test_a_whole_benchmark_has_every_release_and_its_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    releases, file = Releases(monkeypatch), tmp_path / "result.json"
    monkeypatch.setattr(benchmark, "RESULT", file)
    run(monkeypatch, "--data", str(tmp_path), "--scratch", str(tmp_path))
    assert releases.ran == [("first", "1.0.0"), ("first", "1.0.0"), ("second", "1.0.0"), ("first", "1.0.1")]
    result = read_json(file)
    assert result["seconds"] == {"cold": 10.0, "unchanged": 20.0, "second_folder": 30.0}
    assert result["stages_reused_when_unchanged"]
    assert result["byte_identical"]
    assert len(result["loadings"]) == 5
    assert result["loadings_within_the_interval"] == 3
    assert result["all_stages"] == {"seconds": 63.5, "floor": 16.0, "ratio": 63.5 / 16}
    assert result["measurement"]["benchmark"] == "release"
    assert json.dumps(result["gsm8k"])
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[-4:] for line in table if line.startswith("calibrate")] == [["60.0", "15.0", "4.0", "0.00"]]


def test_a_release_alone_has_its_floors_and_writes_only_where_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    releases, file = Releases(monkeypatch), tmp_path / "result.json"
    monkeypatch.setattr(benchmark, "RESULT", file)
    run(monkeypatch, "--once", "--scratch", str(tmp_path))
    assert releases.ran == [("first", "1.0.0")]
    assert not file.exists()
    run(monkeypatch, "--once", "--scratch", str(tmp_path), "--result", str(tmp_path / "other.json"))
    assert read_json(tmp_path / "other.json")["seconds"].keys() == {"cold"}
