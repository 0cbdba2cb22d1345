"""Plots across the versions of one release: slowdown, exactness and size, with the newest version on the right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taylor_ops.presentation.drawing import BUNDLE, ORIGINAL, TARGET, WIDTH, legend_above, shortened

# Beyond it, no axis can hold a value and the margin around it.
_LARGEST = 1e12
# Letters that fit side by side below a plot.
_LETTERS = 58
_HEIGHT = 2.3
_BREADTH = 0.6


class PlottedVersion(NamedTuple):
    """One version of a release.

    Attributes:
        version: The version.
        slowdown: The measured slowdown.
        ci95: The 95 % interval of the measured slowdown.
        target: The target slowdown.
        tolerance: Half the width of the band about the target, as a fraction of the target.
        equal: Share of the held-out prompts on which the bundle gave the tokens of the original. NaN without prompts.
        floor: Share of them on which the original gave its own tokens in another execution, the noise floor.
        bundle: Bytes of the bundle.
        original: Bytes of all tensors of the original.
    """

    version: str
    slowdown: float
    ci95: tuple[float, float]
    target: float
    tolerance: float
    equal: float
    floor: float
    bundle: float
    original: float


def slowdowns(versions: Sequence[PlottedVersion]) -> Figure:
    """Plot the measured slowdown of every version with its interval, and its target with its band."""
    canvas, axes = _canvas(versions)
    targets = _drawable(one.target for one in versions)
    for place, (target, one) in enumerate(zip(targets, versions, strict=True)):
        (half,) = _drawable([one.target * one.tolerance])
        if math.isfinite(target + half):
            axes.bar(place, 2 * half, _BREADTH, bottom=target - half, color=TARGET, alpha=0.15, linewidth=0)
    _draw_levels(axes, targets, TARGET, "target")
    measured = _drawable(one.slowdown for one in versions)
    intervals = [
        _drawable(max(0.0, one.slowdown - one.ci95[0]) for one in versions),
        _drawable(max(0.0, one.ci95[1] - one.slowdown) for one in versions),
    ]
    label = "measured, 95 % interval"
    axes.errorbar(range(len(versions)), measured, intervals, fmt="o-", **_line(BUNDLE), capsize=3, label=label)
    axes.set(ylabel="slowdown")
    axes.margins(y=0.2)
    legend_above(axes)
    return canvas


def prompts_equal(versions: Sequence[PlottedVersion]) -> Figure:
    """Plot on which share of the prompts every version gave the tokens of the original, and its noise floor."""
    canvas, axes = _canvas(versions)
    for label, style, color, shares in (
        ("noise floor", "s--", ORIGINAL, [one.floor for one in versions]),
        ("bundle", "o-", BUNDLE, [one.equal for one in versions]),
    ):
        heights = _drawable(100 * share for share in shares)
        axes.plot(range(len(versions)), heights, style, **_line(color), label=label)
    axes.set(ylabel="prompts equal, %")
    # If all prompts are equal, the axis would otherwise span a hair about 100.
    low, _ = axes.get_ylim()
    axes.set_ylim(min(low, 95), 101)
    legend_above(axes)
    return canvas


def sizes(versions: Sequence[PlottedVersion]) -> Figure:
    """Plot the bytes of the bundle of every version, and the bytes of the original."""
    canvas, axes = _canvas(versions)
    largest = max(max(one.bundle, one.original) for one in versions)
    unit, name = (1e9, "GB") if largest >= 1e9 else (1e6, "MB")
    heights = dict(enumerate(_drawable(one.bundle / unit for one in versions)))
    drawn = {place: height for place, height in heights.items() if math.isfinite(height)}
    axes.bar(list(drawn), list(drawn.values()), _BREADTH, color=BUNDLE, label="bundle")
    _draw_levels(axes, _drawable(one.original / unit for one in versions), ORIGINAL, "original")
    axes.set(ylabel=f"size, {name}", ylim=(0, None))
    legend_above(axes)
    return canvas


def _canvas(versions: Sequence[PlottedVersion]) -> tuple[Figure, Axes]:
    """A plot with a place for each version. If there is no room for the names of all, only every so many have one."""
    canvas = Figure(figsize=(WIDTH, _HEIGHT))
    axes = canvas.subplots()
    names = [shortened(one.version) for one in versions]
    step = math.ceil(len(names) * (max(map(len, names)) + 2) / _LETTERS)
    # Counted from the newest, which always has its name.
    named = sorted(range(len(names) - 1, -1, -step))
    axes.set_xticks(named, [names[place] for place in named])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(False, axis="x")
    return canvas, axes


def _draw_levels(axes: Axes, heights: Sequence[float], color: str, label: str) -> None:
    """Draw a line across the place of each version."""
    drawn = {place: height for place, height in enumerate(heights) if math.isfinite(height)}
    begins, ends = ([place + end for place in drawn] for end in (-_BREADTH / 2, _BREADTH / 2))
    axes.hlines(list(drawn.values()), begins, ends, color=color, linewidth=2, label=label)


def _line(color: str) -> dict[str, Any]:
    return {"color": color, "markersize": 4, "linewidth": 1}


def _drawable(values: Iterable[float]) -> list[float]:
    """The values, with NaN, which leaves a gap, in place of those that no axis holds."""
    return [value if abs(value) < _LARGEST else math.nan for value in values]
