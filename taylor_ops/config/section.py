"""The base class of every config section, and the kinds of values that several sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

REPO_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Owner and name of a repository on the Hub, as far as a pattern can say it."""


def _accepted_by_the_hub(repo_id: str) -> str:
    """The name, if the Hub's client takes it. Its error says what is wrong."""
    # Loaded only here, because a config without the Hub does not need it.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"is a name that the Hub refuses: {error}") from None
    return repo_id


RepoId = Annotated[str, Field(pattern=REPO_ID), AfterValidator(_accepted_by_the_hub)]
"""Owner and name of a repository, by the rules of the Hub's own client."""


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
