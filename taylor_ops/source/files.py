"""Which files of a source a release reads."""

from __future__ import annotations

import shutil
from pathlib import Path

from taylor_ops.model.weight_files import inside, weight_files

WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.tiktoken"]


_UNWANTED = ("training_args", "trainer_state", "optimizer", "adapter_")


def is_read(name: str) -> bool:
    """Whether a release reads the file of this name in a model folder."""
    wanted = any(Path(name).match(pattern) for pattern in WANTED)
    return wanted and not name.startswith(_UNWANTED) and not name.startswith(".")


def files_read(place: Path) -> list[str]:
    """The files of a model folder that a release reads, relative to it, sorted: those it copies, and the weights.

    Raises `BadInput` if the weights cannot be told, or if a file is a link that leaves the folder.
    """
    beside = [
        path.name
        for path in place.iterdir()
        if path.is_file() and is_read(path.name) and not path.name.endswith((".safetensors", ".safetensors.index.json"))
    ]
    for name in beside:
        inside(place, name)
    return sorted([*beside, *weight_files(place).read()])


def first_line(error: Exception) -> str:
    """The first line of an error that is not empty, or else the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def tokenizer_files(place: Path, target: Path) -> None:
    """Copy the tokenizer, chat template and generation config of a model folder, byte for byte."""
    for path in sorted(place.iterdir()):
        keep = path.is_file() and is_read(path.name) and path.suffix != ".safetensors"
        if keep and path.name != "config.json" and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
