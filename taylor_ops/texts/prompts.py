"""Texts and prompts of the project and of the config, as token sequences of one model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Len
from pydantic import TypeAdapter, ValidationError

from taylor_ops.config.texts import TextSource, filled
from taylor_ops.errors import BadInput
from taylor_ops.storage.files import canonical_json, sha256_of
from taylor_ops.texts.chats import Refused, Turn, chat_text
from taylor_ops.texts.data_sets import identity_of
from taylor_ops.texts.readers import DEFAULT_COLUMNS, TextRecord, file_of, origin_of, records

SEQUENCE_TOKENS = 512
"""Length of the sequences over which a perplexity is reported."""

_CHAT = TypeAdapter(Annotated[list[Turn], Len(min_length=1)])


@dataclass(frozen=True)
class Prompt:
    """One prompt as the model reads it.

    Attributes:
        id: Unique name of the prompt in its source.
        kind: The kind that the record states, or else the name of its source.
        tokens: Ids of its tokens.
    """

    id: str
    kind: str
    tokens: tuple[int, ...]


def prompts(source: TextSource, tokenizer: Any) -> list[Prompt]:
    """The prompts of one source as tokens. Chat records go through the tokenizer's chat template (`chats`).

    A chat of the project's own texts is left out if the template refuses it.

    Raises:
        BadInput: A record is not as documented, two have the same id, or the source holds no text. The error names the
            line or the row.
    """
    result: list[Prompt] = []
    ids: set[str] = set()
    kinds: Counter[str] = Counter()
    for record in records(source):
        kind = record.kind or source.name
        if source.per_kind is not None and kinds[kind] == source.per_kind:
            continue
        try:
            tokens = _tokens(_text_or_chat(record, source), source.chat_template, tokenizer, record.place)
        except Refused:
            # Nobody can change the project's own texts, and those that remain do as well.
            if source.builtin is None:
                raise
            continue
        if tokens:
            if record.id in ids:
                raise BadInput(
                    f"{origin_of(source)}: two prompts have the id `{record.id}`",
                    "give every line a different id, or none",
                )
            ids.add(record.id)
            result.append(Prompt(record.id, kind, tokens))
            kinds[kind] += 1
        if source.limit and len(result) == source.limit:
            break
    if not result:
        raise BadInput(f"{origin_of(source)} holds no text", f"correct the text source `{source.name}`")
    return result


def longest(source: TextSource, tokenizer: Any, known: int) -> int:
    """Number of tokens of the longest prompt of a source.

    Args:
        source: The texts.
        tokenizer: Tokenizer of the model.
        known: How many tokens the embedding of the model has.

    Raises:
        BadInput: The tokenizer makes a token that the embedding lacks, or `prompts` raises it.
    """
    read = prompts(source, tokenizer)
    for prompt in read:
        highest = max(prompt.tokens)
        if highest >= known:
            raise BadInput(
                f"{origin_of(source)}: prompt {prompt.id} has the token {highest} "
                f"({tokenizer.convert_ids_to_tokens(highest)}), but the embedding of the model ends at {known - 1}",
                "the tokenizer is of another model, or the model was not resized for its new tokens: resize the "
                "embedding of the original (`resize_token_embeddings`), or take tokenizer and chat template that fit",
            )
    return max(len(prompt.tokens) for prompt in read)


def text_hashes(sources: Iterable[TextSource]) -> list[str]:
    """SHA-256 of the content of each text source, in their order: the bytes of files, the commit of a Hub data set."""
    return [_hash_of(source) for source in sources]


def _hash_of(source: TextSource) -> str:
    if source.dataset is None:
        return sha256_of(file_of(source))
    return hashlib.sha256(canonical_json(identity_of(source.dataset)).encode()).hexdigest()


def sequences(sources: tuple[TextSource, ...], tokenizer: Any, tokens: int, length: int) -> list[tuple[int, ...]]:
    """Token sequences, cut from the joined texts.

    Args:
        sources: The texts, joined in this order.
        tokenizer: Tokenizer of the model.
        tokens: Number of tokens to take, if the texts have so many.
        length: Length of a sequence in tokens. The last one may be shorter. It is left out if it is a single token.

    Raises:
        BadInput: The texts have fewer than two tokens, or `prompts` raises it.
    """
    joined: list[int] = []
    for source in sources:
        for prompt in prompts(source, tokenizer):
            joined.extend(prompt.tokens)
    joined = joined[:tokens]
    cuts = [tuple(joined[start : start + length]) for start in range(0, len(joined), length)]
    result = [cut for cut in cuts if len(cut) > 1]
    if not result:
        places = ", ".join(map(origin_of, sources))
        names = ", ".join(f"`{source.name}`" for source in sources)
        raise BadInput(f"{places}: fewer than two tokens, so no sequence to run", f"use a longer text for {names}")
    return result


def _text_or_chat(record: TextRecord, source: TextSource) -> str | list[Turn]:
    if source.template is not None:
        return _from_template(record, source.template)
    candidates = [source.column] if source.column is not None else DEFAULT_COLUMNS
    column = next((name for name in candidates if name in record.columns), source.column or "prompt")
    value: Any = record.columns.get(column)
    if column == "messages" or isinstance(value, list):
        try:
            _CHAT.validate_python(value, strict=True)
        except ValidationError as error:
            raise BadInput(
                f"{record.place}: `{column}` is not a list of turns, each with text in `role` and `content`",
                "correct the record, name another `column`, or write a `template`",
            ) from error
        # Other fields of a turn, such as a name, are left for the chat template.
        chat: list[Turn] = value
        return chat
    if not isinstance(value, str):
        raise BadInput(
            f"{record.place}: no text in `{column}`; it has {', '.join(record.names)}",
            "name the field that holds the text in `column`",
        )
    return value


def _from_template(record: TextRecord, template: str) -> str:
    remedy = "correct `template` of the text source"
    try:
        return filled(template, record.columns)
    except KeyError as error:
        cause = f"{record.place}: no column `{error.args[0]}`; it has {', '.join(record.names)}"
        raise BadInput(cause, remedy) from error
    except ValueError as error:
        raise BadInput(f"{record.place}: {error}", remedy) from error


def _tokens(content: str | list[Turn], as_chat: bool, tokenizer: Any, place: str) -> tuple[int, ...]:
    if isinstance(content, str) and not as_chat:
        return tuple(tokenizer(content)["input_ids"])
    turns: list[Turn] = [{"role": "user", "content": content}] if isinstance(content, str) else content
    if not tokenizer.chat_template:
        return tuple(tokenizer("\n\n".join(turn["content"] for turn in turns))["input_ids"])
    return tuple(tokenizer(chat_text(turns, tokenizer, place), add_special_tokens=False)["input_ids"])
