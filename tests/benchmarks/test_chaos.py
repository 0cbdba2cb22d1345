"""Chaos counts what it injects: a bad answer and a wrong accept as such, and today's answers are all good."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from safetensors.torch import load_file, save_file

from benchmarks import chaos
from benchmarks.chaos import GROUPS, Group, cases
from benchmarks.injected.case import Answer, Answering, Case, of_call, of_command
from benchmarks.injected.loaded import otherwise_loaded
from benchmarks.measurement import ENTRY
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.model.original import Original
from taylor_ops.model.weight_files import ONE_FILE
from taylor_ops.storage.files import read_json
from tests.support.loopback_hub import bench
from tests.support.tiny_models import save_tiny_model

ODD = "tests.support.odd_answers"
PLACE = "/models/tiny"


def raised(error: Exception) -> Answer:
    """How a call is judged that raises."""

    def call() -> str:
        raise error

    return of_call(call, (PLACE,))


def commanded(status: int, said: str) -> Answer:
    """How a command is judged that ends so, and whose result would be another model."""
    done = subprocess.CompletedProcess([], status, "", said)
    return of_command(done, (PLACE,), lambda: "another model")


# What is counted as what


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyError("hidden_act"), "unexpected KeyError"),
        (WorkFailed(f"{PLACE} is spoilt", "run again"), "exit status 1"),
        (BadInput(f"{PLACE} is spoilt", ""), "no line of cause"),
        (BadInput("something is spoilt", "fetch it again"), "names no place"),
        (BadInput(f"{PLACE}: unexpected KeyError: 'heads'", "fetch it again"), "program that broke"),
    ],
)
def test_an_answer_that_breaks_the_contract_of_errors_is_bad(error: Exception, why: str) -> None:
    answer = raised(error)
    assert (answer.verdict, answer.done) == ("badly", False)
    assert why in answer.why


def test_an_error_with_place_and_remedy_is_a_good_answer_and_a_wrong_result_a_wrong_accept() -> None:
    assert raised(BadInput(f"{PLACE} is spoilt", "fetch it again")) == Answer("well", False)
    assert of_call(lambda: "", (PLACE,)) == Answer("well", True)
    assert of_call(lambda: "other values", (PLACE,)) == Answer("wrong accept", True, "other values")


def test_a_command_is_judged_by_its_status_and_what_it_says() -> None:
    good = f"error: {PLACE} is spoilt\nremedy: fetch it again\n"
    assert commanded(2, good).verdict == "well"
    assert commanded(1, good).verdict == "badly"
    assert commanded(2, "Traceback (most recent call last):\n" + good).verdict == "badly"
    assert commanded(2, good.splitlines()[0]).verdict == "badly"
    assert commanded(0, "").verdict == "wrong accept"


def test_tensors_that_transformers_loads_otherwise_are_seen(tmp_path: Path) -> None:
    read = save_tiny_model(tmp_path / "read")
    other = shutil.copytree(read, tmp_path / "other")
    found = load_file(other / ONE_FILE)
    found["model.norm.weight"] += 1
    save_file(found, other / ONE_FILE, {"format": "pt"})
    assert otherwise_loaded(Original(read)) == ""
    assert "other values of model.norm.weight" in otherwise_loaded(Original(read), pretrained_model_name_or_path=other)
    del found["model.norm.weight"]
    save_file(found, other / ONE_FILE, {"format": "pt"})
    assert "initialises" in otherwise_loaded(Original(read), pretrained_model_name_or_path=other)


# The whole benchmark, over answers that are known


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """One group alone, whose answers are known."""
    monkeypatch.setattr(chaos, "GROUPS", {"odd": Group(ODD, 6, 10)})
    monkeypatch.setattr(chaos, "LANES", (("odd",),))


def called(*arguments: str) -> int:
    """The exit status of the benchmark."""
    with patch.object(sys, "argv", ["chaos", *arguments]), pytest.raises(SystemExit) as ended:
        chaos.main()
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("odd")
def test_every_end_of_a_case_is_counted_and_named_with_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "chaos.json"
    assert called("--seed", "40", "--result", str(result)) == 1
    found = read_json(result)
    counted = {key: found[key] for key in ("injected", "done", "well", "badly", "wrong_accept")}
    assert counted == {"injected": 6, "done": 2, "well": 2, "badly": 3, "wrong_accept": 1}
    named = {(one["kind"], one["seed"]): (one["verdict"], one["why"]) for one in found["bad"]}
    assert named[("accepts", 43)] == ("wrong accept", "transformers loads other values")
    assert named[("dies", 44)] == ("badly", "the process died of it, with -9")
    assert named[("hangs", 45)] == ("badly", "no answer in 10 s")
    assert "unexpected KeyError" in named[("raises", 42)][1]
    assert "wrong accept: --only 'accepts' --seed 43" in capsys.readouterr().out


@pytest.mark.usefixtures("odd")
def test_one_case_is_asked_again_by_its_kind_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("--only", "refused", "--seed", "40") == 0
    assert called("--only", "accepts", "--seed", "43") == 1
    assert "wrong accept, done: transformers loads other values" in capsys.readouterr().out
    assert called("--only", "nothing") == 2


@pytest.mark.usefixtures("odd")
def test_a_small_run_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    result = tmp_path / "chaos.json"
    called("--counts", "2", "--result", str(result))
    assert read_json(result)["bad"] == []
    assert read_json(result)[ENTRY]["part"]


# A small run of what it injects


def asked(group: str, scratch: Path, count: int) -> Iterator[tuple[Case, Answer]]:
    """Some cases of a group, in this process."""
    room: Any = import_module(GROUPS[group].room)
    answering: Answering
    with room.answering(scratch) as answering:
        for case in cases(room.KINDS, count, 0):
            yield case, answering(case)


@pytest.mark.parametrize(("group", "count"), [("configs", 12), ("checkpoints", 46), ("hub", 8)])
def test_a_small_run_is_answered_well(group: str, count: int, tmp_path: Path) -> None:
    found = list(asked(group, tmp_path, count))
    assert len(found) == count
    assert [(case, answer.why) for case, answer in found if answer.verdict != "well"] == []


def test_the_same_seed_spoils_the_same(tmp_path: Path) -> None:
    one, other = (list(asked("checkpoints", tmp_path / name, 6)) for name in ("one", "other"))
    assert [answer.done for _, answer in one] == [answer.done for _, answer in other]


def test_a_part_of_a_release_that_is_shown_is_a_wrong_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub: Any = import_module(GROUPS["hub"].room)
    whole = bench.publish

    def first_a_part(bundle: Path, *given: Any, **where: Any) -> Any:
        if given[0] != "1.1.0":
            return whole(bundle, *given, **where)
        part = shutil.copytree(bundle, tmp_path / "part", dirs_exist_ok=True)
        (part / "config.json").write_text("{ }", encoding="utf-8")
        with suppress(ReleaseError):
            whole(part, "1.0.9", *given[1:], **where)
        return whole(bundle, *given, **where)

    monkeypatch.setattr(hub, "publish", first_a_part)
    with hub.answering(tmp_path / "scratch") as answering:
        found = answering(Case("connection closed", 0))
    assert found.verdict == "wrong accept"
    assert "published already, with other bytes" in found.why or "a part of a release was shown" in found.why
