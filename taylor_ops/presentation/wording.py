"""How figures and texts are worded, alike in the card, the report and the summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence


def count(number: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{number:,}"


def figure(number: float | str, digits: int = 2) -> str:
    """A measured value to so many significant digits; zero, infinity and NaN by name."""
    value = float(number)
    if not math.isfinite(value):
        return _not_finite(value)
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{value:.{digits}g}")


def fixed(number: float | str, decimals: int) -> str:
    """A measured value to so many decimals; infinity and NaN by name."""
    value = float(number)
    return f"{value:.{decimals}f}" if math.isfinite(value) else _not_finite(value)


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "-infinite" if value < 0 else "infinite"


def percent(share: float | str) -> str:
    """A share as a percentage. Only the whole reads 100 % and only nothing reads 0 %, however near a share comes."""
    value = float(share)
    text = fixed(100 * value, 2)
    if text == "100.00":
        return "100 %" if value == 1 else "over 99.99 %" if value < 1 else "over 100 %"
    if text == "0.00":
        return "0 %" if value == 0 else "under 0.01 %"
    if "." in text:
        text = text.rstrip("0").removesuffix(".")
    return f"{text} %"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, with a final newline. What stands in a cell cannot end it."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(_in_a_cell(cell) for cell in line)} |\n" for line in lines)


def _in_a_cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph and in a table cell."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))
