"""The manifest of a bundle: its name, what it repeats of the config, and how it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from taylor_ops.errors import BadInput
from taylor_ops.storage.files import read_json

MANIFEST = "taylor_release.json"


CARD = "README.md"


def marked_statement(marked: bool = True) -> dict[str, Any]:
    """What a copy states of its mark: that it has one, but not whose. Nothing if it is not marked."""
    return {"evidence": {"marked": True, "in_words": IN_WORDS}} if marked else {}


def stated(document: dict[str, Any]) -> dict[str, Any]:
    """The part of a config document that a bundle states.

    It leaves out `execution`, on which no byte of the model depends, `evidence`, which names recipient and key, and
    `publish.signing`, which names a key. The manifest says elsewhere who signed, and nowhere where a key is stored.
    """
    result = {key: value for key, value in document.items() if key not in ("execution", "evidence")}
    if isinstance(result.get("publish"), dict):
        result["publish"] = {key: value for key, value in result["publish"].items() if key != "signing"}
    return result


def portable(value: Any) -> Any:
    """A config document with absolute paths cut to their last part, so that no path of this machine is published."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


IN_WORDS = (
    "This copy is marked: its output weights carry a keyed pattern that tells its publisher which copy it is, and that "
    "is made to stay in models rebuilt, fine-tuned, quantised, pruned or merged from it."
)
"""What card and manifest of a marked copy say of its mark."""


NO_BUNDLE = "point the command at the folder of a bundle"


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle folder. Raises `BadInput` if it cannot be read or is incomplete."""
    path = bundle / MANIFEST
    try:
        manifest = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}", NO_BUNDLE) from error
    complete = isinstance(manifest.get("files"), dict) and isinstance(manifest.get("exactness"), dict)
    if manifest.get("format") == 1 and not complete:
        raise BadInput(f"{path} is not a whole manifest", NO_BUNDLE)
    if manifest.get("format") != 1:
        raise BadInput(
            f"{path} has format {manifest.get('format')!r}; this version reads format 1", "use a newer taylor-release"
        )
    return manifest


def below_the_metadata(card: str, notice: str) -> str:
    """A card with a notice before its text, behind its metadata if it has some."""
    metadata = re.match(r"\A---\n.*?\n---\n", card, re.DOTALL)
    start = metadata.end() if metadata else 0
    return f"{card[:start]}\n{notice}\n\n{card[start:].lstrip()}"
