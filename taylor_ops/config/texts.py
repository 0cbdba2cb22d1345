"""Where texts and prompts come from, and the section `calibration`: the text over which ranges are captured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import COMMIT, LocalPath, RepoId, Section


def parts_of(template: str) -> list[tuple[str, str | None]]:
    """The template as pairs of a text and the column that follows it, or None after the last column.

    Braces may hold the name of a column and nothing else. `str.format` would also take attributes and formats of Python
    values, which do not belong into a data set and are not safe to follow.

    Raises:
        ValueError: The template has no column, or braces that hold something else. The message says what.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is no template: {error}; write {{{{ and }}}} for braces") from error
    for _text, column, form, conversion in parsed:
        if column is None:
            continue
        if form or conversion:
            raise ValueError(f"has a format or conversion after {column!r}; braces hold the name of a column alone")
        if not column or any(character in column for character in ".[]{}"):
            raise ValueError(f"has {column!r} in braces, which must be the name of a column, without dot or bracket")
    if all(column is None for _text, column, _form, _conversion in parsed):
        raise ValueError("names no column in braces, such as {question}")
    return [(text, column) for text, column, _form, _conversion in parsed]


def columns_of(template: str) -> list[str]:
    """The columns that a template names, in their order."""
    return [column for _text, column in parts_of(template) if column is not None]


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with the values of one record. Each item of a list becomes a line.

    Raises:
        KeyError: The record has no such column.
        ValueError: A value is not a text, a number or a list of them.
    """
    parts = parts_of(template)
    return "".join(text + ("" if column is None else _text_of(values[column], column)) for text, column in parts)


def _text_of(value: Any, column: str) -> str:
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return "\n".join(_text_of(item, column) for item in value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"`{column}` holds {type(value).__name__}; a template takes text, numbers and lists of them")


TEXT_SUFFIXES = (".jsonl", ".parquet", ".txt")


class DatasetSource(Section):
    """A data set that the library `datasets` reads: one split of a Hub repository or of a local folder."""

    name: RepoId | None = None
    """Owner and name on the Hub, such as `openai/gsm8k`."""
    folder: LocalPath | None = Field(default=None, validate_default=True)
    """In place of `name`: a folder of data files, or a folder that `save_to_disk` wrote, relative to the folder of the
    config file."""
    config: str | None = Field(default=None, min_length=1)
    """Configuration (subset) of the data set, if it has more than one."""
    split: str = Field(pattern=r"^\w+(\.\w+)*$")
    """Name of one whole split. To take a part of it, set `seed` and `limit` of the text."""
    revision: str | None = Field(default=None, pattern=COMMIT, validate_default=True)
    """The commit of a Hub data set as 40 hexadecimal digits: a branch or a tag can move, a commit cannot."""

    @field_validator("folder")
    @classmethod
    def _one_place(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if "name" in info.data and (info.data["name"] is None) == (folder is None):
            raise ValueError("needs exactly one of `name` (on the Hub) and `folder`")
        return folder

    @field_validator("revision")
    @classmethod
    def _a_commit_of_the_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if "folder" in info.data and info.data.get("name") is not None and revision is None:
            raise ValueError("is required with `name`: the commit as 40 hexadecimal digits, because a branch can move")
        if info.data.get("folder") is not None and revision is not None:
            raise ValueError("belongs to a data set on the Hub; a folder has no commit")
        return revision


class TextSource(Section):
    """Where texts or prompts come from: the project's own, a file, or a data set."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name of the text in reports."""
    builtin: Literal["calibration", "held_out", "running_text"] | None = None
    """One of the texts that the project ships."""
    file: LocalPath | None = None
    """A `.jsonl` file (one object per line), a `.parquet` file (one text per row) or a `.txt` file (one text), relative
    to the folder of the config file."""
    dataset: DatasetSource | None = Field(default=None, validate_default=True)
    """A data set that the library `datasets` reads, from the Hub or from a folder."""
    column: str | None = Field(default=None, min_length=1)
    """The field or column that holds the text or the turns of a chat. Without this key, it is the first of `messages`,
    `prompt` and `text` that a record has."""
    template: str | None = None
    """In place of `column`: text with columns in braces, such as `Question: {question}`. Each item of a list becomes a
    line. Write `{{` and `}}` for braces."""
    chat_template: bool = False
    """Put each text into one user turn of the model's chat template."""
    limit: int | None = Field(default=None, ge=1)
    """Take only this many texts, from the start."""
    per_kind: int | None = Field(default=None, ge=1)
    """Take at most this many prompts of each kind. A record states its kind in the field `kind`."""
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    """Shuffle the records with this seed before `limit` applies. Without it, they keep their order."""

    @field_validator("file")
    @classmethod
    def _a_known_format(cls, file: Path | None) -> Path | None:
        if file is not None and file.suffix not in TEXT_SUFFIXES:
            raise ValueError(f"is {file.name!r}, must be a file that ends in {', '.join(TEXT_SUFFIXES)}")
        return file

    @field_validator("dataset")
    @classmethod
    def _one_origin(cls, dataset: DatasetSource | None, info: ValidationInfo) -> DatasetSource | None:
        others = [info.data[key] for key in ("builtin", "file") if key in info.data]
        if len(others) == 2 and [*others, dataset].count(None) != 2:
            raise ValueError("needs exactly one of `builtin`, `file` and `dataset`")
        return dataset

    @field_validator("template")
    @classmethod
    def _columns_and_nothing_else(cls, template: str | None, info: ValidationInfo) -> str | None:
        if template is None:
            return None
        if info.data.get("column") is not None:
            raise ValueError("says the same as `column`; keep one of them")
        parts_of(template)
        return template

    def may_be(self, other: TextSource) -> bool:
        """Whether both may hold the same text. Another column, template, limit, seed or commit makes no other text."""
        if self.dataset is None or other.dataset is None:
            return (self.builtin, self.file, self.dataset) == (other.builtin, other.file, other.dataset)
        ours, theirs = self.dataset, other.dataset
        # The Hub ignores case in names, and a data set without a named configuration may use any.
        same_place = (ours.name or "").lower() == (theirs.name or "").lower() and ours.folder == theirs.folder
        same_config = ours.config == theirs.config or None in (ours.config, theirs.config)
        return same_place and ours.split == theirs.split and same_config


class Calibration(Section):
    """The text over which ranges are captured: the range of every MLP pre-activation.

    The stage `capture` reads this section. The stage `calibrate` reads the section `latency`.
    """

    texts: tuple[TextSource, ...] = Field(default=(TextSource(name="project", builtin="calibration"),), min_length=1)
    """Texts that run through the model in this order, until `tokens` is reached."""
    tokens: int = Field(default=16_384, ge=256)
    """Number of tokens that run through the model."""
    sequence_tokens: int = Field(default=512, ge=16, le=131_072)
    """Length of the sequences into which the text is cut, in tokens."""
    batch_size: int = Field(default=4, ge=1)
    """Number of sequences that run at once."""
