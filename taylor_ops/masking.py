"""Keep secrets and control characters out of what is said: errors, log records and records on disk."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

MASK = "***"

# A shorter value occurs in ordinary words, and no Hub gives one out.
_SHORTEST = 8
VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
    "TAYLOR_RELEASE_IDENTITY_TOKEN",
    "TAYLOR_RELEASE_KEY_PASSWORD",
)
"""Environment variables that hold a secret."""

# Tokens of whoever else: this process does not know their values. Shorter ones could be names: `hf_checkpoints`.
_FORMS = re.compile(
    r"\b(?:hf_(?:(?:oauth|jwt)_[\w.-]{16,}|[A-Za-z0-9]{30,})|api_org_[A-Za-z0-9]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)"
)
_SIGNED_ADDRESS = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")
_LOGIN_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@'\"]+:[^/\s@'\"]+(?=@)")
_noted: set[str] = set()


def note_secret(value: str) -> str:
    """Have a secret that stands in no variable and no file masked from now on. Returns it."""
    _noted.add(value)
    return value


def masked(text: str) -> str:
    """The text without the secrets of this process, tokens of known forms, logins and signatures in addresses.

    The secrets are the Hub's token in its variable or its files, those of Prefect and of signing in their variables,
    and every one that was noted. The value itself is looked for, whatever its form.
    """
    for secret in _secrets():
        text = text.replace(secret, MASK)
    return _FORMS.sub(MASK, _LOGIN_IN_ADDRESS.sub(MASK, text))


def masked_values(values: Any) -> Any:
    """JSON values with the secrets of this process masked in their texts. Other values and forms of tokens stay."""
    if isinstance(values, dict):
        return {key: masked_values(value) for key, value in values.items()}
    if isinstance(values, list):
        return [masked_values(value) for value in values]
    if isinstance(values, str):
        for secret in _secrets():
            values = values.replace(secret, MASK)
    return values


def without_signatures(text: str) -> str:
    """The text without the queries of addresses, in which signed addresses carry their signature."""
    return _SIGNED_ADDRESS.sub(r"\1", text)


def printable(text: str) -> str:
    """The text with what cannot be seen as its escape: a terminal obeys none of it, and no two names look alike.

    Such are control characters, byte order marks, joiners, what changes the direction of text, and spaces but the
    common one. Tabs and newlines stay.
    """
    if text.isprintable():
        return text
    seen = (letter if letter.isprintable() or letter in "\t\n" else _escaped(letter) for letter in text)
    return "".join(seen)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def mask_logs() -> None:
    """Mask every log record of this process as it is made, for all loggers and handlers. Can be repeated."""
    usual = logging.getLogRecordFactory()
    if isinstance(usual, _Masking):
        return
    logging.setLogRecordFactory(_Masking(usual))


class _Masking:
    """Makes log records with what they say masked, tracebacks included."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._usual(*args, **kwargs)
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):
            said = f"{record.msg} {record.args}"
        shown = printable(masked(said))
        if shown != said:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            shown = printable(masked(trace))
            if shown != trace:
                # A filter that knows errors by their type still has to find it.
                record.masked_error = type(record.exc_info[1])
                record.exc_info, record.exc_text = None, shown.rstrip()
        return record


def _secrets() -> list[str]:
    """Every secret, the longest first, also as it stands in an address."""
    values = {*_noted, *(os.environ.get(name, "") for name in VARIABLES)}
    values.update(_login_of_the_hub())
    # Of `name:password`, the password alone is a secret too.
    values |= {value.partition(":")[2] for value in values}
    values = {value.strip() for value in values}
    values |= {quote(value, safe="") for value in values}
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)


def _login_of_the_hub() -> Iterator[str]:
    """The tokens in the files of the Hub's client: that in use, and all that it has stored."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()
    token = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
    for file in (token, token.parent / "stored_tokens"):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            # Where the client finds no token, none can be said.
            continue
        for line in text.splitlines():
            name, equals, value = line.partition(" = ")
            if not equals or "token" in name:
                yield value or line
