"""How figures and texts are worded, in the same way on the card, in the report and in the summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence


def count(number: int) -> str:
    """A whole number with commas between the thousands."""
    return f"{number:,}"


def figure(number: float | str, digits: int = 2) -> str:
    """A measured value to `digits` significant digits. Infinity and NaN are written as words."""
    value = float(number)
    if not math.isfinite(value):
        return _not_finite(value)
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{value:.{digits}g}")


def fixed(number: float | str, decimals: int) -> str:
    """A measured value to `decimals` decimals. Infinity and NaN are written as words."""
    value = float(number)
    return f"{value:.{decimals}f}" if math.isfinite(value) else _not_finite(value)


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "-infinite" if value < 0 else "infinite"


def percent(share: float | str) -> str:
    """A share as a percentage. Only a share of exactly 1 reads 100 %, and only a share of exactly 0 reads 0 %."""
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
    """A Markdown table with a final newline. No text of a cell can end the cell."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(_in_a_cell(cell) for cell in line)} |\n" for line in lines)


def _in_a_cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph and in a table cell."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))
