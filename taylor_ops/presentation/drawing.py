"""How plots are drawn, in one style for the report and the card, with the same bytes for the same figures."""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The palette of Okabe and Ito, which colour-blind readers can tell apart, and which works in grey prints.
ORIGINAL = "#0072B2"
BUNDLE = "#D55E00"
TARGET = "#009E73"
GREY = "#777777"

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # Without a salt, identifiers inside the SVG are random.
    "svg.hashsalt": "taylor-release",
    # Names come from outside, and a dollar sign in a name is no formula.
    "text.parse_math": False,
}
# Inches. Narrow, so that letters stay readable when a phone fits the plot to its screen.
WIDTH = 4.8
_NAME_LETTERS = 24
_DOTS_PER_INCH = 200


@contextmanager
def in_style(more: Mapping[str, object] = MappingProxyType({})) -> Iterator[None]:
    """Draw plots within the block in the style of this project, whatever the machine's own settings are.

    Args:
        more: Settings of matplotlib for these plots alone.
    """
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    with matplotlib.rc_context(defaults | _STYLE | dict(more)):
        yield


def drawable(values: Iterable[float]) -> list[float]:
    """The values, with NaN in place of infinities. No axis can hold these, and NaN leaves a gap."""
    return [value if math.isfinite(value) else math.nan for value in values]


def legend_above(axes: Axes) -> None:
    """Put a legend in one line above the plot."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2, handletextpad=0.4)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, ..., with the first row at the top."""
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")


def shortened(name: str) -> str:
    """The name, cut to fit beside a row of a plot."""
    return name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 1]}…"


def places_in_row(row: float, number: int, reach: float = 0.3) -> list[float]:
    """Heights of `number` samples in one row, up to `reach` from its middle.

    The samples come in the order in which they were taken, so that a drift shows.
    """
    return [row + reach * (2 * (index + 0.5) / number - 1) for index in range(number)]


def samples_in_row(axes: Axes, row: int, samples: Sequence[float], color: str) -> None:
    """Draw every sample as a dot, with the first at the top, and a line at their median."""
    axes.vlines(statistics.median(samples), row - 0.4, row + 0.4, color=color, linewidth=2)
    axes.plot(samples, places_in_row(row, len(samples)), "o", color=color, markersize=4, alpha=0.6, markeredgewidth=0)


def png(canvas: Figure) -> bytes:
    """A figure as the bytes of a PNG file that names no program and no date."""
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()


def svg(canvas: Figure) -> str:
    """A figure as the text of an SVG file that names no program and no date."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return stream.getvalue()


def svg_element(canvas: Figure) -> Markup:
    """A figure as an SVG element that takes the width of its place on a page."""
    text = svg(canvas)
    text = text[text.index("<svg") :]
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    # Every figure numbers its ids from the same start, but an id must be unique on a page.
    return Markup(re.sub(r' id="[\w.]+_\d+"', "", text))
