"""Whether the code of a bundle may run: that of a known version of this project, other code if it is vouched for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taylor_ops.errors import GateRejected
from taylor_ops.storage.files import files_below
from taylor_ops.verification.known_code import CLASSES, LAYERS

LAYER, MODEL = "taylor_mlp.py", "modeling_taylor.py"
AUTO_MAP = {
    "AutoConfig": "modeling_taylor.TaylorConfig",
    "AutoModelForCausalLM": "modeling_taylor.TaylorForCausalLM",
}

_RUNS = (".py", ".pyc", ".pyd", ".pth", ".so")
# These name code, or a model elsewhere, to transformers.
_NAMES_CODE = ("auto_map", "custom_pipelines")
_NAMES_ANOTHER_MODEL = "adapter_config.json"
# No settings, and by far the largest file of JSON.
_VOCABULARY = "tokenizer.json"


def require_trusted_code(bundle: Path, signed: bool, trust: bool) -> None:
    """Refuse to run the code of a bundle, unless there is a reason to trust it. Call it after the hashes.

    Args:
        bundle: Folder of the bundle.
        signed: Whether it bears the signature that the caller asked for.
        trust: Whether the caller trusts the code whatever it is.

    Raises:
        GateRejected: There is no reason. The message names the file.
    """
    if signed or trust:
        return
    file = unknown_code(bundle)
    if file is not None:
        raise GateRejected(
            f"{bundle / file} is not of a known version of this project, and nobody whom you asked for signed it; "
            "no code of the bundle was run",
            "ask for a signature with --public-key or --identity, or read the code and run again with --trust-code",
        )


def unknown_code(bundle: Path) -> str | None:
    """The first file of a bundle that brings in code which no version of this project has. None if there is none."""
    names = [path.relative_to(bundle).as_posix() for path in files_below(bundle)]
    if _NAMES_ANOTHER_MODEL in names:
        return _NAMES_ANOTHER_MODEL
    for name in names:
        if name.endswith(_RUNS) and name not in (LAYER, MODEL):
            return name
    if _sha256(bundle / LAYER) not in LAYERS:
        return LAYER
    if _sha256_of_the_template(bundle / MODEL) not in CLASSES:
        return MODEL
    for name in names:
        if name.endswith(".json") and name != _VOCABULARY and _names_other_code(bundle / name):
            return name
    return None


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _sha256_of_the_template(path: Path) -> str | None:
    """The hash of the modeling code with the names of its architecture left open. None if it is other code."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    names = re.search(r"^from transformers import (\w+Config), (\w+)$", text, re.MULTILINE)
    kind = re.search(r'^    model_type = "(taylor_[\w.-]+)"$', text, re.MULTILINE)
    if names is None or kind is None:
        return None
    for name, place in ((names[1], "{config}"), (names[2], "{causal_lm}"), (kind[1], "{model_type}")):
        text = re.sub(rf"\b{re.escape(name)}\b", place, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _names_other_code(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        # Another process may be able to read it.
        return True
    if path.name == "config.json" and isinstance(document, dict) and document.get("auto_map") == AUTO_MAP:
        del document["auto_map"]
    return any(key in _NAMES_CODE for key in _keys(document))


def _keys(document: Any) -> Iterator[str]:
    """Every key of a JSON document, at any depth."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
