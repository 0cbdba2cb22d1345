"""The plots of a card, drawn from what the bundle states and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from taylor_ops.presentation.drawing import (
    BUNDLE,
    GREY,
    ORIGINAL,
    TARGET,
    WIDTH,
    drawable,
    in_style,
    legend_above,
    png,
    shortened,
)
from taylor_ops.presentation.latency_plots import PlottedTrial, calibration_curve, time_per_token
from taylor_ops.presentation.wording import figure

PLOTS = {name: f"{name}.png" for name in ("layers", "slowdown", "calibration", "latency")}
"""File of each plot by its name. The last two exist only if a bundle states what was timed."""


def card_plots(statements: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name, drawn from everything that the manifest states.

    They show the order and coverage of each layer, and the slowdown on each device. If the bundle states what was
    timed, they show the measured slowdown with its interval, the candidates of the calibration, and the samples of both
    models. Otherwise they show the target with its tolerance.
    """
    slowdown = statements["slowdown"]
    with in_style():
        drawn = {"layers": _layers(statements["conversion"]["layers"]), "slowdown": _slowdown(slowdown)}
        if "measured" in slowdown:
            timed = slowdown["measured"]
            candidates = [PlottedTrial(**trial) for trial in timed["trials"]]
            neurons = statements["coverage"]["neurons_total"]
            drawn["calibration"] = calibration_curve(slowdown["target"], slowdown["tolerance"], neurons, candidates)
            drawn["latency"] = time_per_token(
                timed["seconds_original"], timed["seconds_bundle"], slowdown["new_tokens"]
            )
        return {PLOTS[name]: png(canvas) for name, canvas in drawn.items()}


def _layers(layers: Sequence[Mapping[str, Any]]) -> Figure:
    canvas = Figure(figsize=(WIDTH, 3.6))
    orders, coverage = canvas.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    numbers = range(len(layers))
    for label, color, values in (
        ("highest order", GREY, [layer["max_order"] for layer in layers]),
        ("mean order", BUNDLE, [layer["mean_order"] for layer in layers]),
    ):
        orders.plot(numbers, drawable(map(float, values)), "o-", color=color, markersize=3, linewidth=1, label=label)
    orders.set(ylabel="expansion order", ylim=(0, None))
    legend_above(orders)
    shares = [100 * (layer["neurons"] - layer["clear"]) / layer["neurons"] for layer in layers]
    coverage.bar(numbers, shares, color=TARGET, width=0.7)
    coverage.set(xlabel="layer", ylabel="protected, %", ylim=(0, 105), yticks=(0, 50, 100))
    coverage.xaxis.set_major_locator(MaxNLocator(integer=True))
    return canvas


def _slowdown(slowdown: Mapping[str, Any]) -> Figure:
    """Bars of the time per token over that of the original: measured, in front of the target band, or the target."""
    targets = [slowdown, *slowdown["devices"]]
    timed = slowdown.get("measured")
    measured = [timed, *timed["devices"]] if timed else [None] * len(targets)
    ours = "this release" if timed else "target"
    canvas = Figure(figsize=(WIDTH, 1.1 + 0.5 * len(targets)))
    axes = canvas.subplots()
    for row, (target, result) in enumerate(zip(targets, measured, strict=True)):
        wanted, reach = float(target["target"]), float(target["target"]) * float(target["tolerance"])
        factor, low, high = (wanted, wanted - reach, wanted + reach) if result is None else _interval(result)
        axes.barh(row - 0.2, 1, height=0.3, color=ORIGINAL, label="" if row else "original")
        if result is not None:
            band = "" if row else "target"
            axes.barh(row + 0.2, 2 * reach, 0.42, wanted - reach, color=TARGET, alpha=0.35, label=band)
        axes.barh(row + 0.2, factor, height=0.3, color=BUNDLE, label="" if row else ours)
        spread = [[max(0.0, factor - low)], [max(0.0, high - factor)]]
        axes.errorbar(factor, row + 0.2, xerr=spread, color="black", capsize=3, linewidth=1)
        end = max(high, wanted + reach)
        if math.isfinite(end):
            axes.text(end, row + 0.2, f"  {figure(factor, 3)}", size=8, va="center")
    axes.set_yticks(range(len(targets)), [shortened(target["device"]) for target in targets])
    axes.set_ylim(len(targets) - 0.5, -0.6)
    axes.grid(False, axis="y")
    axes.margins(x=0.15)
    axes.set(xlabel="time per token, the original's = 1", xlim=(0, None))
    legend_above(axes)
    return canvas


def _interval(measured: Mapping[str, Any]) -> tuple[float, float, float]:
    """A measured slowdown and the ends of its interval."""
    slowdown, low, high = drawable(map(float, (measured["slowdown"], *measured["ci95"])))
    return slowdown, low, high
