"""The section `source` of a release config: where the original model comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, model_validator

from taylor_ops.config.section import COMMIT, LocalPath, RepoId, Section, beside_the_config


class ModelSource(Section):
    """The keys that every kind of source has."""

    recognise_architecture: bool = False
    """Accept an architecture that is not known by name, if its MLPs look like the MLPs of a known one."""
    ignore: tuple[str, ...] = ()
    """Patterns of tensors that the model does not use and that the release may drop, such as `mtp.*`. The card names
    them."""


class HubSource(ModelSource):
    """A model repository on the Hugging Face Hub, at one commit."""

    kind: Literal["hub"]
    repo_id: RepoId
    """Owner and name, such as `meta-llama/Meta-Llama-3-8B-Instruct`."""
    revision: str = Field(pattern=COMMIT)
    """The commit as 40 hexadecimal digits: a branch or a tag can move, a commit cannot."""


class FolderSource(ModelSource):
    """A local folder with `config.json`, safetensors and tokenizer files."""

    kind: Literal["folder"]
    path: LocalPath
    """The folder, relative to the folder of the config file."""


class GgufSource(ModelSource):
    """A GGUF file, at a path or in an installed Python package. As float32, all of it must fit into memory at once."""

    kind: Literal["gguf"]
    file: Path
    """Path of the file, relative to the folder of the config file, or its name inside `package`."""
    package: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """An installed Python package that contains the file."""

    @model_validator(mode="after")
    def _resolve_the_path(self, info: ValidationInfo) -> GgufSource:
        if self.package is None:
            object.__setattr__(self, "file", beside_the_config(self.file, info))
        return self


Source = Annotated[HubSource | FolderSource | GgufSource, Field(discriminator="kind")]
