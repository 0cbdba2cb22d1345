"""Text with columns of a data set in braces: `Question: {question}`, and nothing more than that."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any


def parts_of(template: str) -> list[tuple[str, str | None]]:
    """The template as pairs of a text and the column that follows it; None where only text is left.

    Raises `ValueError` with the reason where the braces hold anything but the name of a column. `str.format` would
    take attributes and formats of Python values there, which neither belong into a data set nor are safe to follow.
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
    """The template with the values of one record in it; a list gives one line an item.

    Raises `KeyError` with a column that the record has not, and `ValueError` on a value that is no text.
    """
    parts = parts_of(template)
    return "".join(text + ("" if column is None else _worded(values[column], column)) for text, column in parts)


def _worded(value: Any, column: str) -> str:
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return "\n".join(_worded(item, column) for item in value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"`{column}` holds {type(value).__name__}; a template takes text, numbers and lists of them")
