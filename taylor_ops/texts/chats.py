"""A chat as the text that the model's own chat template makes of it.

A template that refuses a chat, because it takes no system turn or wants turns to alternate, gets it folded: a system
turn counts as the user's, turns of one role that follow each other are joined, and replies before the first question
are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jinja2 import TemplateError
from typing_extensions import TypedDict

from taylor_ops.errors import BadInput

_REFUSALS = (TemplateError, ValueError, TypeError, KeyError)
_BETWEEN = "\n\n"


class Turn(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


class Refused(BadInput):
    """The chat template of a model refuses a chat, even if it is folded."""


def chat_text(turns: Sequence[Turn], tokenizer: Any, place: str) -> str:
    """The text that the chat template makes of the turns. It is open for a reply if the last turn is a user's.

    Of several templates it is that named `default`, or else the first by its name.

    Args:
        turns: The turns, at least one.
        tokenizer: The tokenizer of a model that has a chat template.
        place: File and line of the chat.

    Raises:
        Refused: With the place, and what the template says.
    """
    try:
        return _rendered(turns, tokenizer)
    except _REFUSALS as error:
        refusal = error
    again = folded(turns)
    if again:
        with suppress(*_REFUSALS):
            return _rendered(again, tokenizer)
    reason = " ".join(str(refusal).split()) or type(refusal).__name__
    raise Refused(
        f"{place}: the chat template of the model refuses this chat, folded too: {reason}",
        "write turns that the template accepts, or read plain text by `column` or `template` of the text source",
    ) from refusal


def folded(turns: Sequence[Turn]) -> list[Turn]:
    """The same chat with user and assistant turns in alternation, the first one a user's."""
    result: list[Turn] = []
    for turn in turns:
        role = "user" if turn["role"] in ("system", "developer") else turn["role"]
        if result and result[-1]["role"] == role:
            result[-1] = {"role": role, "content": f"{result[-1]['content']}{_BETWEEN}{turn['content']}"}
        elif result or role == "user":
            result.append({"role": role, "content": turn["content"]})
    return result


def _rendered(turns: Sequence[Turn], tokenizer: Any) -> str:
    templates = tokenizer.chat_template
    name = None if isinstance(templates, str) or "default" in templates else min(templates)
    text: str = tokenizer.apply_chat_template(
        turns, chat_template=name, tokenize=False, add_generation_prompt=turns[-1]["role"] == "user"
    )
    return text
