"""The picture at the top of the README: one neuron of a release, and its stages with what each refuses.

    python -m benchmarks.overview        # draws docs/plots/overview-light.svg and overview-dark.svg anew

It shows no measurement. The coefficients are those of the Chebyshev series of SiLU on an interval, so that their signs
and their decay are real. The same code gives the same bytes; a test fails if a picture is not what this module draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "plots"
WIDTH, HEIGHT = 800, 530

STAGES = {
    "resolve": "pickles",
    "capture": "infinities",
    "calibrate": "noisy machine",
    "transfer": "off-target",
    "convert": "",
    "mark": "",
    "validate": "divergence",
    "tasks": "other scores",
    "audit": "recovery",
    "approve": "rejected",
    "assemble": "",
    "leaks": "secrets",
    "publish": "overwriting",
    "verify": "changes",
}
"""Every stage in order, and what it refuses in a word or two; empty if it refuses nothing."""

IN_A_ROW, FIRST_STAGE, STEP = 7, 64, 108
ROWS, BETWEEN = (414, 487), 451
"""Heights of the two rows of stages, and of the line that leads from the first to the second."""
SHOWN, ORDER = 6, 24
INTERVAL = (-5.0, 3.0)
WEIGHTS = (0.8, -0.45, 0.25, 1.0, -0.7, 0.5, -1.0, 0.35, -0.25, 0.65)
"""The entries of the column that is drawn: no model's, only told apart easily."""


@dataclass(frozen=True)
class Theme:
    """Colours of one picture. `positive` and `negative` are the signs of weights, `refused` the words of the stages."""

    name: str
    background: str
    border: str
    text: str
    muted: str
    positive: str
    negative: str
    line: str
    refused: str


THEMES = (
    Theme("light", "#ffffff", "#d1d9e0", "#1f2328", "#59636e", "#0072b2", "#d55e00", "#009e73", "#b34700"),
    Theme("dark", "#0d1117", "#3d444d", "#f0f6fc", "#9198a1", "#56b4e9", "#ff9248", "#2fc49a", "#ffa666"),
)


def pictures() -> dict[str, str]:
    """The text of every picture by the name of its file."""
    return {f"overview-{theme.name}.svg": _picture(theme) for theme in THEMES}


def _picture(theme: Theme) -> str:
    parts = [*_frame(theme), *_original(theme), *_terms(theme), *_stages(theme)]
    return "\n".join([*parts, "</svg>", ""])


def _frame(theme: Theme) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif\" role=\"img\">"
    )
    yield "<title>A neuron of the original and of the bundle, and the stages of a release with what they refuse</title>"
    yield (
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8" fill="{theme.background}" '
        f'stroke="{theme.border}"/>'
    )


# One neuron


def _original(theme: Theme) -> Iterator[str]:
    x = 92
    yield _text(x, 38, "Original", theme.text, 17, bold=True)
    yield _text(x, 58, "one column per neuron", theme.muted, 13)
    yield _text(x, 90, _sub(("w", "j")), theme.text, 16)
    yield from _strip(theme, x, 1)
    yield _text(x, 270, "· φ(z)", theme.text, 15)
    yield _text(180, 184, "≈", theme.muted, 30)


def _terms(theme: Theme) -> Iterator[str]:
    first, step = 238, 72
    coefficients = _coefficients(ORDER)
    yield _text(first - 22, 38, "Bundle", theme.text, 17, "start", bold=True)
    explained = "N + 1 columns per neuron: that column times each coefficient of a series of φ"
    yield _text(first - 22, 58, explained, theme.muted, 13, "start")
    for order in (*range(SHOWN), ORDER):
        x = first + step * min(order, SHOWN + 1)
        name = "N" if order == ORDER else str(order)
        yield _text(x, 90, _sub(("c", name), ("\u2009w", "j")), theme.text, 16)
        yield from _strip(theme, x, coefficients[order])
        yield _text(x, 270, _sub(("· P", name), ("(t)", "")), theme.text, 15)
        if order < SHOWN:
            yield _text(x + step / 2, 182, "+", theme.muted, 20)
    yield _text(first + step * SHOWN, 182, "⋯", theme.muted, 20)
    yield _text(first + step * (SHOWN + 0.5), 182, "+", theme.muted, 20)
    for x, what, follows in (
        (92, "The same sum:", "the same tokens."),
        (346, "More columns to read:", "slower."),
        (626, "All columns point the same way:", "an expert recovers " + _sub(("w", "j"), (".", ""))),
    ):
        yield _text(x, 304, what, theme.text, 13.5, bold=True)
        yield _text(x, 323, follows, theme.text, 13.5)


def _coefficients(order: int) -> list[float]:
    """Chebyshev coefficients of SiLU on the interval, to this order."""
    points, (low, high) = 64, INTERVAL
    angles = [math.pi * (index + 0.5) / points for index in range(points)]
    places = [(high + low) / 2 + (high - low) / 2 * math.cos(angle) for angle in angles]
    values = [z / (1 + math.exp(-z)) for z in places]
    sums = [
        sum(value * math.cos(n * angle) for value, angle in zip(values, angles, strict=True)) for n in range(order + 1)
    ]
    return [(1 if n == 0 else 2) / points * total for n, total in enumerate(sums)]


def _strip(theme: Theme, x: float, coefficient: float) -> Iterator[str]:
    """A column of weights times a coefficient, its middle at x: hue is sign, strength is size on a slow scale."""
    side = 15.0
    for row, weight in enumerate(WEIGHTS):
        value = weight * coefficient
        strength = max(0.15, min(1.0, abs(value) ** 0.45))
        color = theme.positive if value > 0 else theme.negative
        yield (
            f'<rect x="{_number(x - 14)}" y="{_number(100 + row * side)}" width="28" height="13.5" rx="2" '
            f'fill="{color}" fill-opacity="{strength:.2f}"/>'
        )


# The stages


def _stages(theme: Theme) -> Iterator[str]:
    yield f'<line x1="24" y1="344" x2="{WIDTH - 24}" y2="344" stroke="{theme.border}"/>'
    yield _text(24, 373, "Release", theme.text, 17, "start", bold=True)
    key = f'stage by stage; <tspan fill="{theme.refused}">✕ what a stage refuses</tspan>'
    yield _text(112, 373, key, theme.muted, 13, "start")
    names = list(STAGES)
    yield _line(theme, FIRST_STAGE + STEP * (len(names) - IN_A_ROW - 1))
    for y, row in zip(ROWS, (names[:IN_A_ROW], names[IN_A_ROW:]), strict=True):
        yield from _row(theme, y, row)


def _line(theme: Theme, end: float) -> str:
    """The line through all stages: along the first row, back between the rows, and along the second row to `end`."""
    first, second = ROWS
    left, right, turn = 24, WIDTH - 24, 14
    path = (
        f"M{FIRST_STAGE},{first} H{right - turn} a{turn},{turn} 0 0 1 {turn},{turn} V{BETWEEN - turn} "
        f"a{turn},{turn} 0 0 1 -{turn},{turn} H{left + turn} a{turn},{turn} 0 0 0 -{turn},{turn} V{second - turn} "
        f"a{turn},{turn} 0 0 0 {turn},{turn} H{end}"
    )
    return f'<path d="{path}" fill="none" stroke="{theme.line}" stroke-width="2"/>'


def _row(theme: Theme, y: float, names: Sequence[str]) -> Iterator[str]:
    """The stages of one row, each with what it refuses below it."""
    for index, name in enumerate(names):
        x = FIRST_STAGE + STEP * index
        yield f'<circle cx="{x}" cy="{y}" r="5" fill="{theme.background}" stroke="{theme.line}" stroke-width="2.5"/>'
        yield _text(x, y - 13, name, theme.text, 14)
        if STAGES[name]:
            yield _text(x, y + 22, f"✕ {STAGES[name]}", theme.refused, 12.5)


# Text


def _text(x: float, y: float, words: str, color: str, size: float, anchor: str = "middle", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{_number(x)}" y="{_number(y)}" fill="{color}" font-size="{_number(size)}" '
        f'text-anchor="{anchor}"{weight}>{words}</text>'
    )


def _sub(*parts: tuple[str, str]) -> str:
    """Letters, each with what stands below it. By shifting: not every browser knows `baseline-shift`."""
    words, back = "", ""
    for letters, below in parts:
        words += f"<tspan{back}>{letters}</tspan>"
        if below:
            words += f'<tspan dy="4" font-size="11">{below}</tspan>'
        back = ' dy="-4"' if below else ""
    return words


def _number(value: float) -> str:
    return f"{value:g}"


def main() -> None:
    """Draw every picture anew."""
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
