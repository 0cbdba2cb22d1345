"""What `plan` says of the files of a source: those that are left, and what does not fit in its tokenizer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from taylor_ops.errors import BadInput
from taylor_ops.preflight.preflight import preflight
from tests.support.preflight_example import config_of, shown
from tests.support.tiny_models import tokenizer
from tests.taylor_ops.conftest import Sample, silent

pytestmark = pytest.mark.usefixtures("clock_of_bytes")


@pytest.fixture
def trained(llama: Sample, tmp_path: Path) -> Sample:
    """A model in a folder as a trainer leaves it."""
    place = shutil.copytree(llama.original, tmp_path / "original")
    for name in ("LICENSE", "train_data.json", "notes.txt"):
        (place / name).write_text("{}", encoding="utf-8")
    return replace(llama, original=place)


def test_plan_names_the_files_that_are_left(trained: Sample, tmp_path: Path) -> None:
    found = preflight(config_of(trained), tmp_path, silent)
    assert found.left == ("notes.txt", "train_data.json")
    assert "notes.txt, train_data.json; `card.files` adds files" in shown(found)
    card = {"license": "mit", "files": ["notes.txt"]}
    assert preflight(config_of(trained, card=card), tmp_path, silent).left == ("train_data.json",)


def test_plan_does_not_say_that_none_is_left_where_it_cannot_know(trained: Sample, tmp_path: Path) -> None:
    found = preflight(config_of(trained), tmp_path, silent).model_copy(update={"left": None})
    assert "not known: the Hub does not answer now" in shown(found)


def test_plan_says_which_token_the_embedding_lacks_and_goes_on(trained: Sample, tmp_path: Path) -> None:
    made = tokenizer()
    made.add_special_tokens({"pad_token": "[PAD]"})
    made.save_pretrained(trained.original)
    found = preflight(config_of(trained), tmp_path, silent)
    assert len(found.notes) == 1
    assert "[PAD] has the id 260" in shown(found)


def test_plan_refuses_a_home_in_a_file_that_would_go_up_and_a_card_file_that_is_not_there(
    trained: Sample, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"none\.md is not a file"):
        preflight(config_of(trained, card={"license": "mit", "files": ["none.md"]}), tmp_path, silent)
    path = trained.original / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"name_or_path": "/home/trainer/run-7"}
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(BadInput, match=r"tokenizer_config\.json gives away the path /home/trainer"):
        preflight(config_of(trained), tmp_path, silent)
