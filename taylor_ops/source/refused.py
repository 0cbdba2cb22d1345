"""Refuse a source for what its folder holds: files that name code, and what looks like a file and is none."""

from __future__ import annotations

import json
from pathlib import Path

from taylor_ops.errors import BadInput
from taylor_ops.source.files import is_read
from taylor_ops.storage.files import kind_of

# The config of a model is judged by its architecture, and a vocabulary names no code.
_OTHERS = ("config.json", "tokenizer.json")


_FILE_NAMES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")


def require_only_files(place: Path) -> None:
    """Raise `BadInput` with the first entry of a model folder that would be read as a file and is none.

    A pipe would be waited for without end, and a link to a folder brings in what nobody listed.
    """
    for path in sorted(place.iterdir()):
        folder = path.is_dir() and not path.is_symlink() and path.suffix not in _FILE_NAMES
        if is_read(path.name) and not path.is_file() and not folder:
            raise BadInput(f"{path} is {kind_of(path)}, not a file", "put the file itself there, or remove it")


def require_no_code(place: Path) -> None:
    """Raise `BadInput` with the first file in a model folder that names code for what transformers would load by it.

    `auto_map` in config.json is no reason to refuse: the architecture must be one of transformers itself, and is taken
    from there.
    """
    for path in sorted(place.glob("*.json")):
        if path.name in _OTHERS or path.name.endswith(".index.json") or not is_read(path.name) or not path.is_file():
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            # Whoever needs the file says what is wrong with it.
            continue
        if isinstance(document, dict) and "auto_map" in document:
            raise BadInput(
                f"{path}: `auto_map` names code of the source, {json.dumps(document['auto_map'])}; no such code is run",
                "release a model whose tokenizer is part of transformers; if it is, remove `auto_map` from that file",
            )
