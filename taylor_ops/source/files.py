"""Which files of a source a release reads."""

from __future__ import annotations

import shutil
from pathlib import Path

WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.tiktoken"]


_UNWANTED = ("training_args", "trainer_state", "optimizer", "adapter_")


def is_read(name: str) -> bool:
    """Whether a release reads the file of this name in a model folder."""
    wanted = any(Path(name).match(pattern) for pattern in WANTED)
    return wanted and not name.startswith(_UNWANTED) and not name.startswith(".")


def first_line(error: Exception) -> str:
    """The first line of an error that is not empty, or else the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def tokenizer_files(place: Path, target: Path) -> None:
    """Copy the tokenizer, chat template and generation config of a model folder, byte for byte."""
    for path in sorted(place.iterdir()):
        keep = path.is_file() and is_read(path.name) and path.suffix != ".safetensors"
        if keep and path.name != "config.json" and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
