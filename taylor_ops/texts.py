"""Texts and prompts: the project's own and those of the config, as token sequences of one model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from taylor_ops.config import TextSource
from taylor_ops.errors import BadInput
from taylor_ops.files import sha256_of

_SHIPPED = {
    "calibration": "calibration.jsonl",
    "held_out": "held_out_prompts.jsonl",
    "running_text": "running_text.txt",
}


class _Turn(TypedDict):
    role: str
    content: str


_CHAT = TypeAdapter(Annotated[list[_Turn], Len(min_length=1)])
_TEXT = TypeAdapter(str)


@dataclass(frozen=True)
class Prompt:
    """One prompt as the model reads it. `kind` is what the text says of itself, or the name of its source."""

    id: str
    kind: str
    tokens: tuple[int, ...]


def shipped(name: str) -> Path:
    """Path of one of the texts that the project ships: `calibration`, `held_out` or `running_text`."""
    return Path(str(files("taylor_ops") / "data" / _SHIPPED[name]))


def prompts(source: TextSource, tokenizer: Any) -> list[Prompt]:
    """The prompts of one source, tokenised; chat records go through the tokenizer's chat template.

    Raises `BadInput` with the line of a record that is not as documented.
    """
    path = _path(source)
    result: list[Prompt] = []
    seen: set[str] = set()
    for record in _records(path, source.column):
        tokens = _tokens(record, source.chat_template, tokenizer)
        if tokens:
            prompt = Prompt(str(record.get("id", len(result) + 1)), str(record.get("kind", source.name)), tokens)
            if prompt.id in seen:
                raise BadInput(
                    f"{path}: two prompts have the id `{prompt.id}`", "give each line an id of its own, or none"
                )
            seen.add(prompt.id)
            result.append(prompt)
        if source.limit and len(result) == source.limit:
            break
    if not result:
        raise BadInput(f"{path} holds no text", f"correct the text source `{source.name}`")
    return result


def text_hashes(sources: Iterable[TextSource]) -> list[str]:
    """SHA-256 of the file behind each text source, in their order."""
    return [sha256_of(_path(source)) for source in sources]


def _path(source: TextSource) -> Path:
    path = shipped(source.builtin) if source.builtin else source.file
    if path is None or not path.is_file():
        raise BadInput(f"text file {path} does not exist", f"correct the text source `{source.name}`")
    return path


def sequences(sources: tuple[TextSource, ...], tokenizer: Any, tokens: int, length: int) -> list[tuple[int, ...]]:
    """Token sequences of `length`, cut from the joined texts, until `tokens` are taken or all is read."""
    joined: list[int] = []
    for source in sources:
        for prompt in prompts(source, tokenizer):
            joined.extend(prompt.tokens)
    joined = joined[:tokens]
    cuts = [tuple(joined[start : start + length]) for start in range(0, len(joined), length)]
    return [cut for cut in cuts if len(cut) > 1]


def _records(path: Path, column: str) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "correct the text source in the config") from error
    if path.suffix != ".jsonl":
        yield {"text": text}
        return
    # Split at line feeds alone: a JSON string may hold other characters that Python takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
            # Half a surrogate pair is valid JSON and no text; nothing downstream could encode it.
            json.dumps(record, ensure_ascii=False).encode()
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}", "write one JSON object a line") from error
        yield _checked(record, column, f"{path}:{number}")


def _checked(record: dict[str, Any], column: str, where: str) -> dict[str, Any]:
    """The record with its text in `text`, or with turns of a chat in `messages`."""
    if "messages" in record:
        try:
            _CHAT.validate_python(record["messages"], strict=True)
        except ValidationError as error:
            raise BadInput(
                f"{where}: `messages` is not a list of turns, each with text in `role` and `content`",
                "correct the line",
            ) from error
        return record
    field = column if column in record else "text"
    try:
        _TEXT.validate_python(record.get(field), strict=True)
    except ValidationError as error:
        raise BadInput(
            f"{where}: no text in `{column}`; it has {', '.join(sorted(record))}",
            "name the field that holds the text in `column`",
        ) from error
    return record | {"text": record[field]}


def _tokens(record: dict[str, Any], as_chat: bool, tokenizer: Any) -> tuple[int, ...]:
    messages = record.get("messages")
    if messages is None and as_chat:
        messages = [{"role": "user", "content": record["text"]}]
    if messages is None:
        return tuple(tokenizer(record["text"])["input_ids"])
    if not tokenizer.chat_template:
        return tuple(tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"])
    turn_is_open = messages[-1]["role"] == "user"
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=turn_is_open)
    return tuple(tokenizer(rendered, add_special_tokens=False)["input_ids"])
