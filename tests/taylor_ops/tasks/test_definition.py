"""What defines a task is plain data: whatever could run code is refused by name, before lm-eval sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from taylor_ops.config import exactness
from taylor_ops.config.exactness import Exactness, Task
from taylor_ops.errors import BadInput
from taylor_ops.tasks import definition
from taylor_ops.tasks.definition import definition_of
from taylor_ops.tasks.prepare import notes_on_tasks
from tests.support.task_example import generated, written


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"class": "builtins.object"}, "`class`"),
        ({"process_docs": "os.system"}, "`process_docs`"),
        ({"process_results": "os.system"}, "`process_results`"),
        ({"custom_dataset": "os.system"}, "`custom_dataset`"),
        ({"unsafe_code": True}, "`unsafe_code`"),
        ({"include": "/etc/other.yaml"}, "`include`"),
        ({"generation_kwargs": {"custom_generate": "owner/name"}}, "`custom_generate`"),
        ({"generation_kwargs": 7}, "`7`"),
        ({"metric_list": [{"metric": ["acc"]}]}, r"`\['acc'\]`"),
        ({"use_prompt": "promptsource:*"}, "`use_prompt`"),
        ({"metric_list": [{"metric": "rouge"}]}, "`rouge`"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "`acc`"),
        ({"metric_list": "rouge"}, "`rouge`"),
        ({"dataset_path": "pandas"}, "`pandas`"),
        ({"dataset_path": "./script.py"}, "`./script.py`"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "`trust_remote_code`"),
        ({"dataset_path": "owner/name", "dataset_kwargs": {"data_files": "x.pkl"}}, "`data_files`"),
        ({"dataset_kwargs": {"data_files": "https://example.org/x.json"}}, "does not exist"),
        ({"dataset_kwargs": {}}, "no data files"),
        ({"task": ["one", "two"]}, "name of one task"),
    ],
)
def test_what_could_run_code_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], refused: str) -> None:
    with pytest.raises(BadInput, match=refused):
        definition_of(Task(file=written(tmp_path, **changes)))


def test_a_task_of_data_alone_is_taken(tmp_path: Path) -> None:
    assert definition_of(Task(file=written(tmp_path))).task == "choice"
    assert definition_of(Task(file=generated(tmp_path))).task == "answer"


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("doc_to_text: !function evil.run", r"`!function` in line \d+ of choice.yaml"),
        ("doc_to_text: !!python/object/apply:os.system [touch]", r"os.system` in line \d+"),
        ("- neither mapping nor list", "cannot be read"),
    ],
)
def test_tags_that_make_objects_are_refused_with_their_line(tmp_path: Path, line: str, refused: str) -> None:
    path = written(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    path.write_text(path.read_text("utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=refused):
        definition_of(Task(file=path))


def test_the_bytes_of_data_and_every_key_decide_the_task_and_its_place_does_not(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    first, second = (definition_of(Task(file=written(folder))) for folder in (here, there))
    assert first.identity() == second.identity()
    assert definition_of(Task(file=written(there, description="Answer."))).identity() != first.identity()
    written(there)
    (there / "asked.jsonl").write_text((there / "asked.jsonl").read_text("utf-8") + "\n", encoding="utf-8")
    assert second.identity() != first.identity()


def test_a_task_of_lm_eval_is_found_by_name_with_what_it_includes_and_names_its_data_set() -> None:
    easy, challenge = (definition_of(Task(name=name)) for name in ("arc_easy", "arc_challenge"))
    assert (easy.task, easy.hub_name) == ("arc_easy", "allenai/ai2_arc")
    assert (challenge.task, challenge.values["dataset_name"]) == ("arc_challenge", "ARC-Challenge")
    assert challenge.values["doc_to_choice"] == easy.values["doc_to_choice"]
    assert notes_on_tasks([Task(name="arc_easy")]) == (
        "the task arc_easy reads allenai/ai2_arc from the Hub, as it is there on the day",
    )


def test_a_task_of_lm_eval_that_runs_code_or_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match="task `hellaswag`: `!function` in line"):
        definition_of(Task(name="hellaswag"))
    with pytest.raises(BadInput, match="lm-eval has no task `arc_hopeless`"):
        definition_of(Task(name="arc_hopeless"))


def test_a_task_of_lm_eval_includes_no_file_beyond_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside.yaml").write_text("task: outside\n")
    root = tmp_path / "tasks"
    root.mkdir()
    (root / "inside.yaml").write_text("task: inside\ninclude: ../outside.yaml\n")
    monkeypatch.setattr(definition, "_tasks_of_lm_eval", lambda: root)
    with pytest.raises(BadInput, match="a file outside of lm-eval"):
        definition_of(Task(name="inside"))


def test_a_config_with_tasks_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "find_spec", lambda _name: None)
    assert Exactness().tasks == ()
    with pytest.raises(ValidationError, match=r"pip install 'taylor-release\[eval\]'"):
        Exactness(tasks=(Task(name="arc_easy"),))


@pytest.mark.parametrize("given", [{}, {"name": "arc_easy", "file": "x.yaml"}])
def test_a_task_has_one_origin(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of `name`"):
        Task(**given)
