"""The section `exactness` of a release config."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section
from taylor_ops.config.texts import TextSource


class Exactness(Section):
    """The held-out prompts on which the bundle must say what the original says."""

    prompts: tuple[TextSource, ...] = Field(default=(TextSource(name="project", builtin="held_out"),), min_length=1)
    """Held-out prompts that both models continue; none may be a calibration text."""
    running_text: tuple[TextSource, ...] = (TextSource(name="project", builtin="running_text"),)
    """Texts over which the perplexity of both models is reported."""
    running_tokens: int = Field(default=1024, ge=64)
    """Most tokens of each running text."""
    new_tokens: int = Field(default=64, ge=1)
    """Tokens by which each prompt is continued, greedily."""
    batch_size: int = Field(default=36, ge=2)
    """Prompts that are continued at once, by the original and by the bundle."""
    floor_batch_size: int = Field(default=12, ge=1, validate_default=True)
    """Batch size of the second run of the original, with plain attention: the first against it is the noise floor."""

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
            raise ValueError("must be smaller than `batch_size`: the floor is another execution")
        return size
