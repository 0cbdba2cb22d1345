"""The texts that the project ships are as documented, and what is held out is kept apart from calibration text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from taylor_ops.texts.readers import shipped

NAMES = ("calibration", "held_out")
KINDS = {"chat", "code", "arithmetic", "languages", "long_context"}
SHARED_WORDS = 8


def records(name: str) -> list[dict[str, Any]]:
    """The objects of a shipped file, one a line."""
    *lines, rest = shipped(name).read_text(encoding="utf-8").split("\n")
    assert rest == "", "the last line must end"
    return [json.loads(line) for line in lines]


def contents(name: str) -> list[str]:
    """Every text of a shipped JSONL file: raw texts, and each turn of a chat."""
    return [
        text
        for record in records(name)
        for text in ([turn["content"] for turn in record["messages"]] if "messages" in record else [record["text"]])
    ]


def plain(text: str) -> str:
    """The text without what a reader does not see as a difference: case, and the kind and number of blanks."""
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def shingles(text: str) -> set[tuple[str, ...]]:
    """Every run of eight words."""
    found = words(text)
    return {tuple(found[start : start + SHARED_WORDS]) for start in range(len(found) - SHARED_WORDS + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_every_line_has_an_id_a_kind_and_either_messages_or_a_text(name: str) -> None:
    found = records(name)
    assert len({record["id"] for record in found}) == len(found)
    for record in found:
        assert set(record) in ({"id", "kind", "messages"}, {"id", "kind", "text"}), record["id"]
        assert record.get("text") or record.get("messages"), record["id"]
        assert all(set(turn) == {"role", "content"} for turn in record.get("messages", [])), record["id"]
    assert all(text.strip() for text in contents(name))


@pytest.mark.parametrize("name", NAMES)
def test_chats_alternate_between_user_and_assistant_after_a_system_turn_or_none(name: str) -> None:
    for record in records(name):
        roles = [turn["role"] for turn in record.get("messages", [])]
        spoken = roles[1:] if roles[:1] == ["system"] else roles
        assert spoken == [("user", "assistant")[turn % 2] for turn in range(len(spoken))], record["id"]


def test_the_held_out_prompts_are_enough_and_of_every_kind() -> None:
    found = records("held_out")
    assert len(found) >= 64
    assert {record["kind"] for record in found} == KINDS


def test_held_out_chats_end_with_a_turn_that_the_model_has_to_answer() -> None:
    for record in records("held_out"):
        assert "text" in record or record["messages"][-1]["role"] == "user", record["id"]


def test_no_held_out_text_stands_in_the_calibration_text() -> None:
    # Shorter prompts than eight words have no shingle. They are compared with their punctuation, as they stand.
    seen = [plain(text) for text in contents("calibration")]
    assert [text for text in contents("held_out") if any(plain(text) in one for one in seen)] == []


@pytest.mark.parametrize("name", ["held_out", "running_text"])
def test_held_out_and_calibration_text_share_no_run_of_eight_words(name: str) -> None:
    seen = set().union(*map(shingles, contents("calibration")))
    held_out = contents(name) if name == "held_out" else [shipped(name).read_text(encoding="utf-8")]
    shared = [" ".join(run) for text in held_out for run in shingles(text) & seen]
    assert shared == []


def test_the_running_text_is_paragraphs_of_prose() -> None:
    paragraphs = shipped("running_text").read_text(encoding="utf-8").strip().split("\n\n")
    assert len(paragraphs) > 1
    assert all(len(words(paragraph)) > SHARED_WORDS for paragraph in paragraphs)
