"""What decides a stage: changes that make it run again, and changes that do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import taylor_ops
from taylor_ops import stages
from taylor_ops.stages import Stage
from taylor_ops.storage import stage_cache

STAGES = {stage.name: stage for stage in vars(stages).values() if isinstance(stage, Stage)}
ORIGINAL = Path(taylor_ops.__path__[0])


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of taylor_ops, which is read in place of it."""
    copy = tmp_path / "taylor_ops"
    shutil.copytree(ORIGINAL, copy, ignore=shutil.ignore_patterns("__pycache__"))
    usual = stage_cache._source_of
    monkeypatch.setattr(stage_cache, "_source_of", lambda module: copy / usual(module).relative_to(ORIGINAL))
    return copy


def changed_by(code: Path, *rooms: str) -> set[str]:
    """The stages whose keys are others after these rooms have changed."""
    keys = []
    for ending in ("", "# changed\n"):
        for room in rooms:
            (code / room).write_text((code / room).read_text("utf-8") + ending, encoding="utf-8")
        stage_cache.code_of.cache_clear()
        keys.append({name: stage.key({}) for name, stage in STAGES.items()})
    stage_cache.code_of.cache_clear()
    return {name for name in STAGES if keys[0][name] != keys[1][name]}


def test_there_are_thirteen_stages_and_each_is_named_once() -> None:
    assert len(STAGES) == len({stage.name for stage in vars(stages).values() if isinstance(stage, Stage)}) == 13


def test_another_word_on_the_card_or_another_way_to_publish_converts_and_proves_nothing_again(code: Path) -> None:
    rooms = ["config/card.py", "config/publish.py", "bundle/card.py", *map(str, relative(code, "publishing"))]
    assert changed_by(code, *rooms) == {"assemble"}


def test_the_section_of_the_card_decides_the_card_alone(code: Path) -> None:
    assert changed_by(code, "config/card.py") == {"assemble"}


def test_the_layer_that_ships_decides_every_stage_that_runs_or_writes_it(code: Path) -> None:
    changed = changed_by(code, "modeling/taylor_mlp.py")
    assert changed == {"calibrate", "transfer", "convert", "validate", "audit"}


@pytest.mark.parametrize(
    ("room", "stage"),
    [
        ("capture/capture.py", "capture"),
        ("latency/search.py", "calibrate"),
        ("conversion/terms.py", "convert"),
        ("exactness/tally.py", "validate"),
        ("conversion/integrity.py", "validate"),
        ("tasks/definition.py", "tasks"),
        ("attacks/rank_one.py", "audit"),
        ("verification/consumer.py", "verify"),
    ],
)
def test_the_code_of_a_stage_decides_it(code: Path, room: str, stage: str) -> None:
    assert stage in changed_by(code, room)


def test_what_is_known_of_finished_releases_decides_no_stage(code: Path) -> None:
    assert changed_by(code, *map(str, relative(code, "releases")), *map(str, relative(code, "preflight"))) == set()


def relative(code: Path, package: str) -> list[Path]:
    return [path.relative_to(code) for path in (code / package).glob("*.py")]


@pytest.mark.parametrize(("stage", "most"), [("verify", 20), ("convert", 36)])
def test_a_stage_depends_on_few_modules(stage: str, most: int) -> None:
    assert len(stage_cache.sources_of(*STAGES[stage].modules())) <= most
