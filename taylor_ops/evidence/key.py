"""The owner's secret, and what is derived from it. Only the name of a key is ever written down."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path

from taylor_ops.config.evidence import VARIABLE
from taylor_ops.errors import BadInput
from taylor_ops.masking import note_secret

_LEAST_BYTES = 16
_NAME_DIGITS = 16


class Key:
    """A secret. Neither its text nor its representation shows it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @property
    def name(self) -> str:
        """The name of the key in `release.json`: 16 hexadecimal digits that reveal nothing of the key."""
        return self._mac("name").hex()[:_NAME_DIGITS]

    @property
    def text(self) -> str:
        """The secret itself. Only the gate that looks for it in a bundle needs it."""
        try:
            return self._secret.decode("utf-8")
        except UnicodeDecodeError:
            # The gate reads a file that is no text in the same way.
            return self._secret.decode("latin-1")

    def stream(self, length: int, *purpose: str) -> bytes:
        """`length` bytes for one purpose, the same on every machine: SHAKE-256 of the HMAC-SHA256 of its parts."""
        return hashlib.shake_256(self._mac(*purpose)).digest(length)

    def _mac(self, *purpose: str) -> bytes:
        # The length before each part keeps the messages of any two purposes apart.
        parts = [part.encode() for part in ("taylor-release evidence 1", *purpose)]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")


def read_key(place: str) -> Key:
    """Read the key from a file or an environment variable. A line break at its end is no part of the key.

    Args:
        place: Path of the file, or name of the variable in capitals.

    Raises:
        BadInput: There is no key, or one so short that it could be guessed.
    """
    remedy = "make one with `openssl rand -hex 32`, and keep it: without it no copy is ever traced"
    if re.fullmatch(VARIABLE, place):
        if place not in os.environ:
            raise BadInput(
                f"the environment variable {place}, which should hold the key of the evidence, is not set", remedy
            )
        secret = os.fsencode(os.environ[place])
    else:
        try:
            secret = Path(place).read_bytes()
        except OSError as error:
            raise BadInput(f"{place}, the key of the evidence, cannot be read: {error.strerror}", remedy) from error
    secret = secret.rstrip(b"\r\n")
    note_secret(secret.decode("utf-8", "replace"))
    if len(secret) < _LEAST_BYTES:
        raise BadInput(
            f"{place} holds {len(secret)} bytes, too few for a key; it must be {_LEAST_BYTES} or more", remedy
        )
    return Key(secret)
