"""The manifest of a bundle: its name, what it repeats of the config, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taylor_ops.errors import BadInput
from taylor_ops.storage.files import read_json

MANIFEST = "taylor_release.json"


CARD = "README.md"


def marked_statement(marked: bool = True) -> dict[str, Any]:
    """What a marked copy states: that it is one, and not whose. Nothing where it is not marked."""
    return {"evidence": {"marked": True, "in_words": IN_WORDS}} if marked else {}


def stated(document: dict[str, Any]) -> dict[str, Any]:
    """What a bundle states of a config document: all but who did the work, on which nothing in it depends, who receives
    it, and the keys.

    Who signed, the manifest states of the signature; where a key lies, nothing.
    """
    result = {key: value for key, value in document.items() if key not in ("execution", "evidence")}
    if isinstance(result.get("publish"), dict):
        result["publish"] = {key: value for key, value in result["publish"].items() if key != "signing"}
    return result


def portable(value: Any) -> Any:
    """A config document with absolute paths cut to their last part: no place of this machine leaves it."""
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
"""What card and manifest say of it."""


NO_BUNDLE = "point the command at the folder of a bundle"


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle folder; `BadInput` when there is none to read."""
    path = bundle / MANIFEST
    try:
        manifest = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}", NO_BUNDLE) from error
    whole = isinstance(manifest.get("files"), dict) and isinstance(manifest.get("exactness"), dict)
    if manifest.get("format") == 1 and not whole:
        raise BadInput(f"{path} is not a whole manifest", NO_BUNDLE)
    if manifest.get("format") != 1:
        raise BadInput(f"{path} has format {manifest.get('format')!r}, known is 1", "use a newer taylor-release")
    return manifest
