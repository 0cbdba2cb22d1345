"""Chats under templates of every temper: as they are, folded, left out, or refused with file, line and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput
from taylor_ops.texts.chats import Turn, chat_text, folded
from taylor_ops.texts.prompts import longest, prompts
from tests.support.tiny_models import tokenizer

PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}" + PLAIN
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns have to alternate') }}{% endif %}{% endfor %}" + PLAIN
)
NOTHING = "{{ raise_exception('no chat at all') }}"
SYSTEM: Turn = {"role": "system", "content": "Be brief."}
USER: Turn = {"role": "user", "content": "What is 2 + 2?"}
REPLY: Turn = {"role": "assistant", "content": "4"}


def with_template(template: Any) -> Any:
    made = tokenizer()
    made.chat_template = template
    return made


def says(template: Any, *turns: Turn) -> str:
    return chat_text(turns, with_template(template), "asked.jsonl:3")


def test_a_chat_that_the_template_takes_stays_as_it_is() -> None:
    assert says(PLAIN, SYSTEM, USER) == "<system>Be brief.\n<user>What is 2 + 2?\n<model>"


@pytest.mark.parametrize("template", [NO_SYSTEM, ALTERNATING])
def test_a_system_turn_that_the_template_refuses_goes_in_front_of_the_question(template: str) -> None:
    assert says(template, SYSTEM, USER) == "<user>Be brief.\n\nWhat is 2 + 2?\n<model>"
    assert says(template, SYSTEM, USER, REPLY) == "<user>Be brief.\n\nWhat is 2 + 2?\n<assistant>4\n"


def test_turns_that_do_not_alternate_are_joined() -> None:
    assert says(ALTERNATING, REPLY, USER, USER, REPLY, REPLY, USER) == (
        "<user>What is 2 + 2?\n\nWhat is 2 + 2?\n<assistant>4\n\n4\n<user>What is 2 + 2?\n<model>"
    )


@given(st.lists(st.sampled_from([SYSTEM, USER, REPLY])))
def test_a_folded_chat_alternates_and_loses_no_word_of_user_or_system(turns: list[Turn]) -> None:
    found = folded(turns)
    assert [turn["role"] for turn in found] == ["user", "assistant"] * (len(found) // 2) + ["user"] * (len(found) % 2)
    said = "".join(turn["content"] for turn in found)
    for turn in (SYSTEM, USER):
        assert said.count(turn["content"]) == turns.count(turn)
    assert folded(found) == found


def test_of_several_templates_the_default_one_counts_or_the_first_by_name() -> None:
    other = "other{{ messages[0].content }}"
    assert says({"tool_use": other, "default": PLAIN}, USER).startswith("<user>")
    assert says({"tool_use": PLAIN, "rag": other}, USER).startswith("other")


@pytest.mark.parametrize("template", [NOTHING, "{{ messages.0.no.such.thing }}", "{% for %}"])
def test_a_chat_that_no_folding_helps_is_named_with_file_line_and_remedy(template: str, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(json.dumps({"messages": [SYSTEM, USER]}) for _ in range(2)), encoding="utf-8")
    with pytest.raises(BadInput, match=r"asked\.jsonl:1: the chat template of the model refuses") as caught:
        prompts(TextSource(name="asked", file=file), with_template(template))
    assert "plain text" in caught.value.remedy


def test_chats_of_the_project_are_left_out_where_the_template_refuses_them_all() -> None:
    held_out = TextSource(name="project", builtin="held_out")
    everything, left = prompts(held_out, tokenizer()), prompts(held_out, with_template(NOTHING))
    assert 0 < len(left) < len(everything)
    assert {prompt.id for prompt in left} < {prompt.id for prompt in everything}
    assert {prompt.kind for prompt in everything} - {prompt.kind for prompt in left} == {"chat"}
    strict = prompts(held_out, with_template(ALTERNATING))
    assert [prompt.id for prompt in strict] == [prompt.id for prompt in everything]


def test_a_token_that_the_embedding_lacks_is_named_before_any_work(tmp_path: Path) -> None:
    made = tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    made.chat_template = "<|turn|>{{ messages[0].content }}"
    beyond = len(made) - 1
    file = tmp_path / "asked.jsonl"
    file.write_text(json.dumps({"messages": [USER]}), encoding="utf-8")
    source = TextSource(name="asked", file=file)
    with pytest.raises(BadInput, match=rf"asked\.jsonl: prompt 1 has the token {beyond} \(<\|turn\|>\)"):
        longest(source, made, beyond)
    assert longest(source, made, beyond + 1) > 1
