"""The stage `tasks` in the flow: what it is given, what decides it, and that its gate stops a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.tasks import proof
from taylor_ops.config_file.read import read
from taylor_ops.errors import GateRejected
from taylor_ops.storage.artifacts import Artifacts
from taylor_ops.tasks.record import MetricScores, TasksRecord
from tests.flows.tasks.test_killed_stages import Unmeasured
from tests.support import release_example as example
from tests.support.keyed import key_of
from tests.support.task_example import written


def config_with(config: Path, *tasks: dict[str, Any]) -> Path:
    """The config, with these tasks."""
    document = yaml.safe_load(config.read_text("utf-8"))
    document["exactness"]["tasks"] = list(tasks)
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return config


def test_a_release_whose_bundle_scores_otherwise_is_rejected(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    given: list[tuple[Any, ...]] = []

    def score(*arguments: Any) -> TasksRecord:
        given.append(arguments)
        metric = MetricScores(metric="acc", original=0.5, bundle=0.25, difference=-0.25, stderr=None)
        return TasksRecord(tasks=(example.task(metrics=(metric,)),))

    monkeypatch.setattr(proof.scored, "evaluate", score)
    source = example.source()

    def scored(**task: Any) -> Any:
        run = Unmeasured(read(config_with(tiny_config, {"file": "choice.yaml"} | task)), Artifacts(tmp_path / "a"))
        return run, proof.answer_tasks.fn(run, source)

    with pytest.raises(GateRejected, match=r"acc is 0\.25, that of the original 0\.5: more than 0 apart"):
        scored()
    run, (found,) = scored(difference=0.25)
    assert found.allowed == 0.25
    original, bundle, dtype, tasks, _device, seed, _progress, _scratch = given[-1]
    assert (original, bundle, dtype, seed) == (source.folder, run.model_folder, "float32", run.config.seed)
    assert tasks == run.config.exactness.tasks


def test_a_release_without_tasks_asks_nothing(tiny_config: Path, tmp_path: Path) -> None:
    assert proof.tasks(Unmeasured(read(tiny_config), Artifacts(tmp_path / "a")), example.source()) == ()


def test_the_questions_decide_the_stage_and_the_difference_that_is_allowed_does_not(
    tiny_config: Path, tmp_path: Path
) -> None:
    data = tmp_path / "asked.jsonl"

    def key(**task: Any) -> str:
        loaded = read(config_with(tiny_config, {"file": "choice.yaml"} | task))
        return key_of(proof.answer_tasks, loaded, example.source())

    written(tmp_path)
    usual = key()
    assert key(difference=0.5) == usual
    assert key(limit=3) != usual
    assert key(batch_size=2) != usual
    written(tmp_path, description="Answer.")
    assert key() != usual
    written(tmp_path)
    assert key() == usual
    data.write_text(data.read_text("utf-8").replace("plus", "and"), encoding="utf-8")
    assert key() != usual


def test_tasks_decide_nothing_of_validate(tiny_config: Path, tmp_path: Path) -> None:
    written(tmp_path)
    found = (example.source(), example.captured(), example.converted())
    usual = key_of(proof.validate, read(tiny_config), *found)
    assert key_of(proof.validate, read(config_with(tiny_config, {"file": "choice.yaml"})), *found) == usual
