"""The section `exactness` of a release config."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import LocalPath, Section
from taylor_ops.config.texts import TextSource


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


class Exactness(Section):
    """The held-out prompts on which the bundle must say what the original says, and how both are compared."""

    prompts: tuple[TextSource, ...] = Field(default=(TextSource(name="project", builtin="held_out"),), min_length=1)
    """Held-out prompts that both models continue. None of them may be a calibration text."""
    running_text: tuple[TextSource, ...] = (TextSource(name="project", builtin="running_text"),)
    """Texts over which the perplexity of both models is reported."""
    running_tokens: int = Field(default=1024, ge=64)
    """Largest number of tokens that are taken from each running text."""
    new_tokens: int = Field(default=64, ge=1)
    """Number of tokens that each model generates after a prompt, greedily."""
    batch_size: int = Field(default=36, ge=2)
    """Number of prompts that original and bundle continue at once."""
    floor_batch_size: int = Field(default=12, ge=1, validate_default=True)
    """Batch size of a second run of the original, with plain attention. The noise floor compares the two runs."""
    tasks: tuple[Task, ...] = ()
    """Tasks of the evaluation harness lm-eval that original and bundle answer, with a gate on their difference. They
    need the extra `eval`."""

    @field_validator("prompts", "running_text")
    @classmethod
    def _names_tell_them_apart(cls, texts: tuple[TextSource, ...]) -> tuple[TextSource, ...]:
        names = [text.name for text in texts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two texts are called `{twice}`; names must differ")
        return texts

    @field_validator("floor_batch_size")
    @classmethod
    def _the_floor_is_another_execution(cls, size: int, info: ValidationInfo) -> int:
        if size >= info.data.get("batch_size", size + 1):
            raise ValueError("must be smaller than `batch_size`, so that the noise floor is from another execution")
        return size

    @field_validator("tasks")
    @classmethod
    def _lm_eval_is_here(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        if tasks and find_spec("lm_eval") is None:
            raise ValueError(
                "needs the package lm-eval, which is not installed; run pip install 'taylor-release[eval]'"
            )
        return tasks
