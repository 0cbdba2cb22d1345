"""The stage `tasks`: a bundle scores as its original, a wrong one is rejected, and tasks reach nothing beyond."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from taylor_ops.config.exactness import Task
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.tasks.evaluate import evaluate
from taylor_ops.tasks.gate import judged
from taylor_ops.tasks.prepare import require_tasks
from taylor_ops.tasks.record import MetricScores, TasksRecord
from tests.support import release_example as example
from tests.support.task_example import QUESTIONS, generated, written
from tests.taylor_ops.conftest import CPU, Sample


def flipped(sample: Sample, folder: Path) -> Path:
    """A copy of the bundle in which one tensor of every MLP has the other sign."""
    shutil.copytree(sample.converted, folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        wrong = {
            name: -tensor if "mlp" in name and tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
        save_file(wrong, file, metadata={"format": "pt"})
    return folder


def scored(sample: Sample, bundle: Path, tasks: list[Task], scratch: Path) -> tuple[TasksRecord, list[tuple[int, int]]]:
    """The record on these tasks, and the progress on the way."""
    seen: list[tuple[int, int]] = []
    record = evaluate(
        sample.original, bundle, "float32", tasks, CPU, 7, lambda *now: seen.append(now), scratch / "scratch"
    )
    return record, seen


def test_a_bundle_scores_as_its_original_and_one_with_a_flipped_sign_is_rejected(llama: Sample, tmp_path: Path) -> None:
    tasks = [Task(file=written(tmp_path)), Task(file=generated(tmp_path), limit=3, batch_size=2)]
    record, seen = scored(llama, llama.converted, tasks, tmp_path)
    choice, answer = judged(record, tasks).tasks
    assert (choice.task, choice.documents, choice.answers_equal) == ("choice", QUESTIONS, QUESTIONS)
    assert [one.metric for one in choice.metrics] == ["acc", "acc_norm"]
    assert all(one.difference == 0 for one in choice.metrics)
    # Not for want of an answer: some are right, some are wrong.
    assert 0 < choice.metrics[0].original < 1
    share = choice.metrics[0].original
    assert choice.metrics[0].stderr == pytest.approx((share * (1 - share) / (QUESTIONS - 1)) ** 0.5)
    assert (answer.task, answer.documents, answer.answers_equal) == ("answer", 3, 3)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert len(seen) > QUESTIONS

    wrong, _ = scored(llama, flipped(llama, tmp_path / "flipped"), tasks[:1], tmp_path)
    assert wrong.tasks[0].sha256 == choice.sha256
    assert wrong.tasks[0].answers_equal is not None
    assert wrong.tasks[0].answers_equal < QUESTIONS
    with pytest.raises(GateRejected, match="task `choice`: acc"):
        judged(wrong, tasks[:1])


@pytest.mark.parametrize(
    ("bundle", "allowed", "passes"),
    [(0.5, 0.0, True), (0.51, 0.0, False), (0.49, 0.0, False), (0.51, 0.02, True), (float("nan"), 0.5, False)],
)
def test_the_gate_compares_both_ways_and_with_what_the_config_allows(
    bundle: float, allowed: float, passes: bool
) -> None:
    metric = MetricScores(metric="acc", original=0.5, bundle=bundle, difference=bundle - 0.5, stderr=None)
    record, tasks = TasksRecord(tasks=(example.task(metrics=(metric,)),)), [Task(name="arithmetic", difference=allowed)]
    if passes:
        assert judged(record, tasks).tasks[0].allowed == allowed
    else:
        with pytest.raises(GateRejected, match="task `arithmetic`: acc is"):
            judged(record, tasks)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"doc_to_text": "{{question.__class__.__mro__}}"}, "unsafe"),
        ({"doc_to_text": "{{no_such_column}}"}, "no_such_column"),
        ({"test_split": "train"}, "train"),
        ({"output_type": "song"}, "song"),
    ],
)
def test_a_task_that_lm_eval_cannot_run_is_refused_before_long_work(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadInput, match=f"cannot run the task `choice`.*{reason}"):
        require_tasks([Task(file=written(tmp_path, **changes))])


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    task = Task(file=written(tmp_path))
    with pytest.raises(BadInput, match=r"two tasks of `exactness\.tasks` are called `choice`"):
        require_tasks([task, task])
