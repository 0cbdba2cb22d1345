"""Hashes of texts: what tells a text from one that was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.errors import BadInput
from taylor_ops.texts.prompts import text_hashes
from tests.taylor_ops.texts.test_prompts import jsonl, source


def test_the_hash_of_a_text_changes_with_its_file_and_with_no_other(tmp_path: Path) -> None:
    one = source(jsonl(tmp_path / "one.jsonl", {"text": "a"}), name="one")
    two = source(jsonl(tmp_path / "two.jsonl", {"text": "b"}), name="two")
    before = text_hashes([one, two])
    jsonl(tmp_path / "two.jsonl", {"text": "c"})
    after = text_hashes([one, two])
    assert len(after) == len(before) == 2
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_texts_of_one_name_are_each_hashed(tmp_path: Path) -> None:
    # The default prompts and the default running text are both called `project`.
    held_out = source(jsonl(tmp_path / "held_out.jsonl", {"text": "a"}))
    running = source(jsonl(tmp_path / "running.jsonl", {"text": "b"}))
    before = text_hashes([held_out, running])
    jsonl(tmp_path / "held_out.jsonl", {"text": "c"})
    assert text_hashes([held_out, running]) != before


def test_the_hash_of_a_text_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        text_hashes([source(tmp_path / "p.jsonl")])
