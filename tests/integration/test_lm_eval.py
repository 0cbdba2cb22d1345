"""The evaluation harness lm-eval runs on a bundle as on any model of transformers, and scores it as the original."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.taylor_ops.conftest import sample

REAL = Path(__file__).parents[3] / "shared" / "data" / "truthfulqa.jsonl"
QUESTIONS = 24
CHOICE, ANSWER = "taylor_choice", "taylor_answer"
# Only the tasks of the test: lm-eval takes most of a minute to read its own thousands.
EVALUATE = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
place, tasks, *models = sys.argv[1:]
manager = TaskManager(include_path=place, include_defaults=False)
found = []
for model in models:
    arguments = f"pretrained={model},trust_remote_code=True,dtype=float32"
    done = simple_evaluate(
        model="hf", model_args=arguments, tasks=tasks.split(","), task_manager=manager, device="cpu", batch_size=4
    )
    found.append({"results": done["results"], "samples": done["samples"]})
print(json.dumps(found, default=str))
"""


@dataclass(frozen=True)
class Evaluated:
    """What lm-eval found: the scores of each task, and what the model answered to each question."""

    scores: dict[str, dict[str, Any]]
    answers: dict[str, list[Any]]


def questions() -> list[dict[str, Any]]:
    """Questions with a right and a wrong answer: real ones where their file lies beside the repository, or our own."""
    if REAL.is_file():
        lines = REAL.read_text(encoding="utf-8").splitlines()[: QUESTIONS + 1]
        real = [json.loads(line) for line in lines]
        asked = [(one["prompt"], one["best_answer"]) for one in real]
    else:
        asked = [(f"What is {n} plus {n}?", f"The sum is {2 * n}") for n in range(QUESTIONS + 1)]
    # The wrong answer is that of the next question.
    return [
        {"question": question, "choices": [right, wrong] if n % 2 else [wrong, right], "gold": 1 - n % 2}
        for n, ((question, right), (_, wrong)) in enumerate(pairwise(asked))
    ]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks over the same questions: one chooses by likelihood, one generates greedily."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in questions()), encoding="utf-8")
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
    }
    chosen = common | {
        "task": CHOICE,
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    generated = common | {
        "task": ANSWER,
        "output_type": "generate_until",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 16, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    for task in (chosen, generated):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return folder


def evaluated(tasks: Path, *models: Path) -> list[Evaluated]:
    """Run lm-eval on models, one after the other, in a process that imports nothing of this project, and no network."""
    scratch = tasks.parent / "evaluated"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", EVALUATE, str(tasks), f"{CHOICE},{ANSWER}", *map(str, models)],
        cwd=scratch,
        env=os.environ | {"HF_HOME": str(scratch / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return [Evaluated(one["results"], one["samples"]) for one in found]


def test_a_bundle_gets_the_scores_and_gives_the_answers_of_the_original(tasks: Path, tmp_path: Path) -> None:
    made = sample(tmp_path, "llama")
    original, bundle = evaluated(tasks, made.original, made.converted)

    assert bundle.scores == original.scores
    # Not for want of an answer: some are right, some are wrong.
    assert 0 < original.scores[CHOICE]["acc,none"] < 1
    for task in (CHOICE, ANSWER):
        assert len(original.answers[task]) == QUESTIONS
    for one, other in zip(original.answers[ANSWER], bundle.answers[ANSWER], strict=True):
        assert other["filtered_resps"] == one["filtered_resps"]
    for one, other in zip(original.answers[CHOICE], bundle.answers[CHOICE], strict=True):
        assert [response[1] for response in other["filtered_resps"]] == [r[1] for r in one["filtered_resps"]]
        assert [float(response[0]) for response in other["filtered_resps"]] == pytest.approx(
            [float(response[0]) for response in one["filtered_resps"]], abs=0.01
        )
