"""Plots of a calibration: its trials on the way to the target, and the time per token of both models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taylor_ops.presentation.drawing import (
    BUNDLE,
    GREY,
    ORIGINAL,
    TARGET,
    WIDTH,
    drawable,
    legend_above,
    name_rows,
    samples_in_row,
)


class PlottedTrial(NamedTuple):
    """One measured plan.

    Attributes:
        columns: Stacked columns.
        predicted: The slowdown that was predicted.
        slowdown: The measured slowdown.
        ci95: The 95 % interval of the measured slowdown.
    """

    columns: int
    predicted: float
    slowdown: float
    ci95: tuple[float, float]


def calibration_curve(target: float, tolerance: float, neurons: int, candidates: Sequence[PlottedTrial]) -> Figure:
    """Plot slowdown against stacked columns: the target with its band, predictions, and measurements with intervals.

    Args:
        target: The target slowdown.
        tolerance: Half the width of the band, as a fraction of the target.
        neurons: Neurons of the model. With one column for each neuron, the model would be the original.
        candidates: The measured plans, in the order in which they were measured.
    """
    canvas, axes = _canvas(3.0)
    axes.axhspan(target * (1 - tolerance), target * (1 + tolerance), color=TARGET, alpha=0.15, linewidth=0)
    axes.axhline(target, color=TARGET, linewidth=1, label="target")
    columns = [candidate.columns / 1000 for candidate in candidates]
    measured = drawable(candidate.slowdown for candidate in candidates)
    reach = [
        drawable(max(0.0, candidate.slowdown - candidate.ci95[0]) for candidate in candidates),
        drawable(max(0.0, candidate.ci95[1] - candidate.slowdown) for candidate in candidates),
    ]
    axes.plot(*prediction(neurons, candidates), "--", color=GREY, linewidth=1, label="first prediction")
    predicted = drawable(candidate.predicted for candidate in candidates)
    axes.plot(columns, predicted, "D", markerfacecolor="none", color=GREY, markersize=6, label="predicted")
    axes.errorbar(columns, measured, reach, fmt="o", color=BUNDLE, capsize=3, label="measured, 95 % interval")
    for number, place in enumerate(zip(columns, measured, strict=True), start=1):
        if math.isfinite(place[1]):
            axes.annotate(str(number), place, (7, -3), textcoords="offset points", size=8)
    axes.margins(0.15, 0.25)
    axes.set(xlabel="stacked columns, thousands", ylabel="slowdown")
    legend_above(axes)
    return canvas


def prediction(neurons: int, candidates: Sequence[PlottedTrial]) -> tuple[list[float], list[float]]:
    """The line of the first prediction: columns in thousands, a little beyond all candidates, and their slowdowns."""
    columns, first = [candidate.columns for candidate in candidates], candidates[0]
    ends = [0.97 * min(columns), 1.03 * max(columns)]
    slope = (first.predicted - 1) / max(1, first.columns - neurons)
    return [end / 1000 for end in ends], drawable(1 + slope * (end - neurons) for end in ends)


def time_per_token(original: Sequence[float], bundle: Sequence[float], new_tokens: int) -> Figure:
    """Plot every sample of both models and their medians, in milliseconds per token.

    Args:
        original: Seconds of the original for `new_tokens`, in the order in which they were measured.
        bundle: Seconds of the bundle, in the same way.
        new_tokens: Tokens of one sample.
    """
    canvas, axes = _canvas(2.2)
    for row, (color, seconds) in enumerate(((ORIGINAL, original), (BUNDLE, bundle))):
        samples = [1000 * value / new_tokens for value in seconds if math.isfinite(value)]
        if samples:
            samples_in_row(axes, row, samples, color)
    name_rows(axes, ["original", "bundle"])
    axes.set(xlabel="milliseconds per token", xlim=(0, None))
    return canvas


def _canvas(height: float) -> tuple[Figure, Axes]:
    canvas = Figure(figsize=(WIDTH, height))
    return canvas, canvas.subplots()
