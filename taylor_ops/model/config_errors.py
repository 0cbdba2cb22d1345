"""What is wrong with the `config.json` of a model, in one line with the file and the key."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taylor_ops.errors import BadInput

_REMEDY = "correct the config of the source"
# The most that are laid out, which takes about a millisecond for each layer, by the end of a key.
_MOST = {"layer": 1_000, "layers": 1_000, "experts": 10_000}
_AT_LEAST_ONE = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_ATTENTION = ("attn_implementation", "_attn_implementation")
_SHOWN = 300
_TORCH_COUNTS_TO = 1 << 63
_TALKED_OF_AS = {"padding_idx": "pad_token_id"}


def require_countable(path: Path, document: Mapping[str, Any]) -> None:
    """Raise `BadInput` if the config asks for no layer, or for more layers or experts than can be laid out in time."""
    for place, value in _every(document):
        most = _MOST.get(re.split(r"[._]", place)[-1])
        fewest = int(place in _AT_LEAST_ONE)
        if most is not None and type(value) is int and not fewest <= value <= most:
            raise BadInput(f"{path}: `{place}` is {value}; it must be between {fewest} and {most:,}", _REMEDY)


def require_known_attention(path: Path, document: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `BadInput` if the config asks for another attention than the `known`, such as code of the Hub."""
    for place, value in _every(document):
        if place.rpartition(".")[2] in _ATTENTION and value is not None and value not in known:
            raise BadInput(
                f"{path}: `{place}` is {in_one_line(value)!r}, which is no attention of transformers: "
                f"{', '.join(sorted(known))}",
                "remove the key from the config of the source: transformers then chooses what the machine has",
            )


def _every(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value of a JSON object, at any depth below objects, by the keys that lead to it."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        place, value = waiting.pop()
        yield place, value
        if isinstance(value, Mapping):
            waiting += [(f"{place}.{key}".lstrip("."), inner) for key, inner in value.items()]


@contextmanager
def config_errors_named(path: Path, document: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever transformers raises while it lays out a model by its config into `BadInput` with file and key.

    The config alone decides what happens meanwhile, so any error is one of the config, whatever its type.
    """
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:
        # transformers and torch say it by KeyError, ZeroDivisionError, RuntimeError, AssertionError and others.
        reason = in_one_line(str(error)) or "no reason is given"
        key = _blamed(document, error)
        place = f"{path}: `{key}`" if key else str(path)
        raise BadInput(f"{place} is refused by transformers: {type(error).__name__}: {reason}", _REMEDY) from error


def in_one_line(value: object) -> str:
    """The beginning of a value of somebody's config as one line that a terminal can show."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value)[:_SHOWN])
    return " ".join(text.split())


def _blamed(document: Mapping[str, Any], error: Exception) -> str | None:
    """The key that an error speaks of, by its name or its value. None if no key stands out."""
    text = " ".join(str(error).split())
    leaves = dict(_leaves(document))
    for word, key in _TALKED_OF_AS.items():
        if word in text.lower() and key in leaves:
            return key
    named = [key for key in leaves if len(key) > 3 and key in text]
    if named:
        return max(named, key=len)
    if isinstance(error, ZeroDivisionError):
        return next((key for key, value in leaves.items() if type(value) is int and value == 0), None)
    held = [key for key, value in leaves.items() if _stands_in(value, text)]
    return held[0] if len(held) == 1 else None


def _leaves(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", leaf) for inner, leaf in value.items())
        yield key, value


def _stands_in(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return len(value) > 2 and value in text
    if type(value) is int:
        return (value < 0 and str(value) in text) or (abs(value) >= _TORCH_COUNTS_TO and "overflow" in text.lower())
    return False
