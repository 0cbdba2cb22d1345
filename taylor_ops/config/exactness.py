"""The section `exactness` of a release config."""

from __future__ import annotations

from importlib.util import find_spec

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section
from taylor_ops.config.tasks import Task
from taylor_ops.config.texts import TextSource


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
