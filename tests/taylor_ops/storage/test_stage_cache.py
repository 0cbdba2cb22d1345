"""A finished stage is reused when nothing that decided it has changed, and never otherwise."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taylor_ops
from taylor_ops.config.source import FolderSource
from taylor_ops.config.texts import Calibration
from taylor_ops.errors import WorkFailed
from taylor_ops.series.plan import Plan
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import Stage
from taylor_ops.storage import stage_cache
from taylor_ops.storage.files import sha256_of_tree, write_text
from taylor_ops.storage.record import Record
from taylor_ops.storage.stage_cache import code_of, kept_beside, kept_for, kept_under_key, recall, remember, stage_key

STAGE = "taylor_ops.stage_of_a_test"
PLAN = Plan(basis="chebyshev", tolerance=1e-4, least_order=1, columns=20, neurons=4)


class Remembered(Record):
    """A record with text that takes more than one byte a character."""

    text: str = "für – ↵ 😀"
    numbers: tuple[float, ...] = (1.5, 2.0)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tests that run many times."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules are found as modules of taylor_ops."""
    monkeypatch.setattr(taylor_ops, "__path__", [*taylor_ops.__path__, str(tmp_path)])
    code_of.cache_clear()
    yield tmp_path
    code_of.cache_clear()


def code_after(package: Path, **modules: str) -> str:
    """The hash of the stage's code after its modules were written; a dot in a name is written as two underscores."""
    for name, text in modules.items():
        write_text(package / f"{name.replace('__', '/')}.py", text)
    code_of.cache_clear()
    return code_of(STAGE)


def source(**changes: Any) -> ResolvedSource:
    values: dict[str, Any] = {
        "folder": Path("/models/tiny"),
        "origin": "local folder tiny",
        "model_type": "llama",
        "sha256": {"model.safetensors": "a" * 64},
        "parameters": 7,
    }
    return ResolvedSource(**values | changes)


def key(**inputs: Any) -> str:
    return stage_key(["taylor_ops.storage.files"], inputs)


# Inputs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.5),
        (1, "1"),
        (True, "True"),
        (None, "None"),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        (Path("a"), Path("b")),
        (PLAN, PLAN.model_copy(update={"columns": 21})),
        (PLAN, PLAN.model_copy(update={"tolerance": math.inf})),
        (Calibration(), Calibration(tokens=512)),
        (FolderSource(kind="folder", path=Path("a")), FolderSource(kind="folder", path=Path("b"))),
        (source(), source(sha256={"model.safetensors": "b" * 64})),
    ],
)
def test_another_input_is_another_key(one: Any, other: Any) -> None:
    assert key(input=one) == key(input=one)
    assert key(input=one) != key(input=other)


def test_an_input_more_or_under_another_name_is_another_key() -> None:
    assert len({key(), key(a=None), key(b=None), key(a=None, b=None)}) == 4


def test_the_order_in_which_inputs_are_given_is_no_difference() -> None:
    assert key(a=1, b={"x": 1, "y": 2}) == key(b={"y": 2, "x": 1}, a=1)


def test_what_the_identity_of_a_record_leaves_out_is_no_difference() -> None:
    assert key(source=source()) == key(source=source(folder=Path("/elsewhere"), origin="local folder elsewhere"))


@settings(deadline=None)
@given(
    one=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3),
    other=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3),
)
def test_keys_are_equal_exactly_where_inputs_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (stage_key(["taylor_ops.errors"], one) == stage_key(["taylor_ops.errors"], other)) == (one == other)


def test_another_version_of_a_tool_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    real = stage_cache.version
    monkeypatch.setattr(stage_cache, "version", lambda tool: "0.0.0" if tool == "safetensors" else real(tool))
    assert key() != before


# Code


def test_another_module_is_another_key() -> None:
    assert stage_key(["taylor_ops.storage.files"], {}) != stage_key(["taylor_ops.texts.prompts"], {})


@pytest.mark.parametrize(
    "how",
    [
        "from taylor_ops.deep import f",
        "from taylor_ops import deep",
        "from taylor_ops import deep as d",
        "import taylor_ops.deep",
        "def f():\n    from taylor_ops.deep import g",
        "from taylor_ops.middle import f",
    ],
)
def test_a_change_in_a_module_that_is_imported_in_any_way_and_depth_is_seen(package: Path, how: str) -> None:
    before = code_after(package, stage_of_a_test=how, middle="from taylor_ops.deep import f", deep="f = 1")
    assert code_after(package, deep="f = 2") != before
    assert code_after(package, deep="f = 1") == before


def test_a_change_in_a_module_of_a_package_inside_is_seen(package: Path) -> None:
    how = "from taylor_ops.inside.deep import f"
    before = code_after(package, inside____init__="", inside__deep="f = 1", stage_of_a_test=how)
    assert code_after(package, inside__deep="f = 2") != before


def test_a_change_in_a_module_that_is_not_imported_is_no_difference(package: Path) -> None:
    before = code_after(package, stage_of_a_test="from taylor_ops.errors import BadInput", deep="f = 1")
    assert code_after(package, deep="f = 2") == before


def test_a_change_in_the_module_itself_is_seen(package: Path) -> None:
    before = code_after(package, stage_of_a_test="f = 1")
    assert code_after(package, stage_of_a_test="f = 2") != before


def test_modules_that_import_one_another_are_read_once_each(package: Path) -> None:
    before = code_after(package, stage_of_a_test="from taylor_ops.deep import f", deep=f"from {STAGE} import g")
    assert code_after(package, deep=f"from {STAGE} import h") != before


@pytest.mark.parametrize("module", ["taylor_ops.no_such_module", "taylor_ops.no_such_package.module"])
def test_a_module_that_does_not_exist_is_an_error_and_not_the_hash_of_nothing(module: str) -> None:
    with pytest.raises(LookupError, match=module):
        code_of(module)


def test_a_module_that_was_renamed_is_an_error_for_what_still_names_it(package: Path) -> None:
    code_after(package, stage_of_a_test="from taylor_ops.deep import f", deep="f = 1")
    (package / "deep.py").rename(package / "deeper.py")
    importlib.invalidate_caches()
    with pytest.raises(LookupError, match=r"taylor_ops\.deep\b"):
        code_after(package)


def test_a_stage_whose_module_was_renamed_has_no_key(package: Path) -> None:
    write_text(package / "stage_of_a_test.py", "def work():\n    pass\n")
    importlib.invalidate_caches()
    stage = Stage("of a test", importlib.import_module(STAGE).work, Plan)
    before = stage.key({})
    code_after(package, stage_of_a_test="def work():\n    return 1\n")
    assert stage.key({}) != before
    (package / "stage_of_a_test.py").rename(package / "renamed.py")
    code_of.cache_clear()
    importlib.invalidate_caches()
    sys.modules.pop(STAGE)
    with pytest.raises(LookupError, match="stage_of_a_test"):
        stage.key({})


# Memory


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder with a stage's files below `folder` and its memory in `memory.json`."""
    write_text(tmp_path / "folder" / "a.txt", "a")
    write_text(tmp_path / "folder" / "sub" / "b.txt", "b")
    remember(tmp_path / "memory.json", "the key", Remembered(), tmp_path / "folder")
    return tmp_path


def recalled(place: Path, key: str = "the key", record_type: type[Record] = Remembered) -> Record | None:
    return recall(place / "memory.json", key, record_type, place / "folder")


def test_a_finished_stage_is_recalled_with_an_equal_record(finished: Path) -> None:
    assert recalled(finished) == Remembered()


def test_another_key_is_not_recalled(finished: Path) -> None:
    assert recalled(finished, "another key") is None


def test_a_stage_with_a_changed_file_is_not_recalled(finished: Path) -> None:
    (finished / "folder" / "sub" / "b.txt").write_text("B", encoding="utf-8")
    assert recalled(finished) is None


def test_a_stage_with_a_missing_file_is_not_recalled(finished: Path) -> None:
    (finished / "folder" / "a.txt").unlink()
    assert recalled(finished) is None


def test_a_stage_whose_folder_is_gone_is_not_recalled(finished: Path) -> None:
    (finished / "folder").rename(finished / "elsewhere")
    assert recalled(finished) is None


def test_a_stage_with_an_extra_file_is_not_recalled(finished: Path) -> None:
    (finished / "folder" / ".extra").write_text("", encoding="utf-8")
    assert recalled(finished) is None


def test_a_stage_that_never_finished_is_not_recalled(finished: Path) -> None:
    (finished / "memory.json").unlink()
    assert recalled(finished) is None


def test_a_record_of_another_form_is_not_recalled(finished: Path) -> None:
    assert recalled(finished, record_type=Plan) is None


def test_a_stage_that_makes_no_files_is_recalled_without_a_folder(tmp_path: Path) -> None:
    remember(tmp_path / "memory.json", "the key", PLAN, tmp_path / "folder")
    assert recall(tmp_path / "memory.json", "the key", Plan, tmp_path / "folder") == PLAN


@settings(deadline=None)
@given(tolerance=st.floats(allow_nan=False), columns=st.integers())
def test_any_record_is_recalled_as_it_was_with_infinite_numbers_too(
    scratch: Path, tolerance: float, columns: int
) -> None:
    plan = PLAN.model_copy(update={"tolerance": tolerance, "columns": columns})
    remember(scratch / "memory.json", "the key", plan, scratch / "folder")
    assert recall(scratch / "memory.json", "the key", Plan, scratch / "folder") == plan


@settings(deadline=None)
@given(data=st.data())
def test_a_memory_file_cut_short_anywhere_is_not_recalled(scratch: Path, data: st.DataObject) -> None:
    remember(scratch / "memory.json", "the key", Remembered(), scratch / "folder")
    whole = (scratch / "memory.json").read_bytes()
    assert whole.endswith(b"}\n")
    (scratch / "memory.json").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    assert recalled(scratch) is None


@settings(deadline=None)
@given(junk=st.binary(max_size=40) | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps).map(str.encode))
def test_a_memory_file_of_anything_else_is_not_recalled(scratch: Path, junk: bytes) -> None:
    (scratch / "memory.json").write_bytes(junk)
    assert recalled(scratch) is None


# What an unfinished stage keeps


def interrupted(folder: Path) -> None:
    with kept_for("one", folder):
        (kept_beside(folder) / "part").write_text("made")
        raise KeyboardInterrupt


def test_what_was_kept_under_the_same_key_is_there_again_after_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    with kept_for("one", folder):
        assert (kept_beside(folder) / "part").read_text() == "made"
    assert not kept_beside(folder).exists()


def test_a_worker_that_goes_on_for_another_key_writes_where_the_next_one_does_not_look(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    of_one = kept_under_key(folder)
    with kept_for("two", folder):
        of_one.mkdir()
        assert kept_under_key(folder).parent == of_one.parent == kept_beside(folder)
        assert not kept_under_key(folder).exists()
    assert not kept_beside(folder).exists()


def test_what_another_key_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    with kept_for("two", folder):
        assert not (kept_beside(folder) / "part").exists()


@pytest.mark.parametrize("removed_by", ["one", "two"])
def test_a_removal_that_is_killed_midway_leaves_nothing_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed_by: str
) -> None:
    folder = tmp_path / "stage"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    (kept_beside(folder) / "other part").write_text("made")

    def killed_midway(kept: Path, ignore_errors: bool = False) -> None:
        (kept / "other part").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_midway)
        with pytest.raises(KeyboardInterrupt), kept_for(removed_by, folder):
            pass
    with kept_for("one", folder):
        assert sha256_of_tree(kept_beside(folder)).keys() == {"key"}


def test_what_another_key_left_and_cannot_be_removed_is_an_error_and_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stage"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    monkeypatch.setattr(shutil, "rmtree", lambda _kept, ignore_errors=False: None)
    for _again in range(2):
        with pytest.raises(WorkFailed, match="cannot be removed") as caught, kept_for("two", folder):
            pytest.fail("the stage began")
        assert str(kept_beside(folder)) in caught.value.cause
