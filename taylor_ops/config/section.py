"""The base class of every config section, and the kinds of values that several sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

REPO_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Owner and name of a repository on the Hub."""


def beside_the_config(path: Path, info: ValidationInfo) -> Path:
    """The path from the folder of the config file, which the validation context gives. An absolute path stays."""
    folder = (info.context or {}).get("folder")
    return path if path.is_absolute() or folder is None else Path(folder) / path


LocalPath = Annotated[Path, AfterValidator(beside_the_config)]


class Section(BaseModel):
    """A part of the config: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)


DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


COMMIT = r"^[0-9a-f]{40}$"
