"""The tasks of lm-eval that the section `exactness` names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import LocalPath, Section


class Task(Section):
    """A task of lm-eval on which original and bundle must score alike. No task may run code of its own."""

    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$")
    """Name of a task that comes with lm-eval, such as `arc_easy`. Its data set is fetched from the Hub."""
    file: LocalPath | None = Field(default=None, validate_default=True)
    """In place of `name`: the YAML file of a task, relative to the folder of the config file."""
    limit: int | None = Field(default=None, ge=1)
    """Take only this many documents, from the start."""
    batch_size: int = Field(default=8, ge=1)
    """Number of requests that each model answers at once."""
    difference: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Largest difference between the scores of original and bundle that the gate allows, in every metric of the
    task."""

    @field_validator("file")
    @classmethod
    def _one_origin(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if "name" in info.data and (info.data["name"] is None) == (file is None):
            raise ValueError("needs exactly one of `name` (a task of lm-eval) and `file`")
        return file

    @property
    def place(self) -> str:
        """The task in errors: its name, or its file."""
        return f"task `{self.name}`" if self.file is None else str(self.file)
