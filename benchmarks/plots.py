"""Plots of the benchmarks, drawn from the JSON files of benchmarks/results and from nothing else.

    python -m benchmarks.plots        # draws the plots of docs/plots anew from the results

A dot is one sample. The samples of a row are drawn from top to bottom in the order in which they were taken. A thick
upright line is their median, a dashed line the goal. Equal results give equal bytes; a test fails for an old plot.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.figures import DOCUMENTS
from benchmarks.measurement import RESULTS
from taylor_ops.presentation.drawing import (
    BUNDLE,
    GREY,
    ORIGINAL,
    TARGET,
    WIDTH,
    in_style,
    name_rows,
    places_in_row,
    samples_in_row,
    svg,
)
from taylor_ops.storage.files import read_json, write_text

FOLDER = DOCUMENTS / "plots"
CONTENDERS = {
    "peer": "the peer",
    "released": "released",
    "compiled": "released, compiled",
    "one product": "released, one product",
    "read (matrix times vector)": "a product that reads",
    "read (sum)": "a sum that reads",
}
RELEASED = ("released", "compiled", "one product")
PEER_GOAL, READING_GOAL, WORKERS_GOAL = 3, 0.8, 0.6

Result = Mapping[str, Any]


def forward(result: Result) -> Figure:
    """Seconds of every contender, one part a stack."""
    stacks = result["stacks"]
    canvas = Figure(figsize=(WIDTH, 0.6 + 1.9 * len(stacks)))
    parts = canvas.subplots(len(stacks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, stack) in zip(parts, stacks.items(), strict=True):
        _draw_contenders(axes, stack)
        axes.set_title(name, loc="left", fontsize=9)
    parts[-1].set(xlabel="seconds for one token, log scale", xscale="log")
    parts[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    parts[-1].xaxis.set_minor_formatter(NullFormatter())
    return _with_legend(canvas, parts[-1])


def _draw_contenders(axes: Axes, stack: Result) -> None:
    for row, name in enumerate(CONTENDERS):
        samples_in_row(axes, row, stack["seconds"][name], BUNDLE if name in RELEASED else ORIGINAL)
    name_rows(axes, list(CONTENDERS.values()))
    median = {name: statistics.median(seconds) for name, seconds in stack["seconds"].items()}
    reading = min(median["read (matrix times vector)"], median["read (sum)"])
    for style, most, label in (
        (":", median["peer"] / PEER_GOAL, f"goal: {PEER_GOAL} times as fast as the peer"),
        ("--", reading / READING_GOAL, f"goal: {READING_GOAL} of the speed of reading"),
    ):
        axes.vlines(most, 0.5, 1.5, color=TARGET, linestyle=style, linewidth=1.5, label=label)


def convert(result: Result) -> Figure:
    """Speed of conversion over that of a plain write in every round."""
    rows = {f"until {name}": result["ratio"][name]["rounds"] for name in ("synced", "written")}
    return _ratios(rows, result["goal"], "speed of conversion, that of a plain write = 1")


def capture(result: Result) -> Figure:
    """Speed of capture over that of a plain forward pass in every round."""
    rows = {"model loaded before": result["ratio"]["rounds"], "loading counted": result["ratio_with_loading"]["rounds"]}
    return _ratios(rows, result["goal"], "speed of capture, that of the plain pass = 1")


def publish(result: Result) -> Figure:
    """Speed of a publication over that of a plain upload in every round."""
    rows = {"verified and tagged": result["speed"]["rounds"]}
    return _ratios(rows, result["goals"]["speed"], "speed of publication, that of a plain upload = 1")


def _ratios(rows: Mapping[str, Sequence[float]], goal: float, label: str) -> Figure:
    canvas, axes = _canvas(len(rows))
    for row, ratios in enumerate(rows.values()):
        samples_in_row(axes, row, ratios, BUNDLE)
    axes.axvline(goal, color=TARGET, linestyle="--", label=f"goal: at least {goal:g}")
    name_rows(axes, list(rows))
    axes.set(xlabel=label, xlim=(0, None))
    return _with_legend(canvas, axes)


def memory(result: Result) -> Figure:
    """Peaks of capture and conversion, beside the bound of each model and the peak of a process that does nothing."""
    models = sorted(result["runs"].items(), key=lambda item: tuple(item[1]["model"].values()))
    canvas, axes = _canvas(len(models))
    for row, (_, run) in enumerate(models):
        for work, marker, place in (("capture", "o", row - 0.15), ("convert", "s", row + 0.15)):
            if work in run["peak_bytes"]:
                axes.plot(run["peak_bytes"][work] / 1e9, place, marker, color=BUNDLE, markersize=5, label=work)
        limit = run.get("goal_bytes", run["bound_bytes"]) / 1e9
        axes.vlines(limit, row - 0.4, row + 0.4, color=TARGET, linestyle="--", label="bound")
    few, goal = max(result["runs"]["8 layers"]["peak_bytes"].values()), result["depth"]["goal"]
    row = [name for name, _ in models].index("32 layers")
    label = f"goal: {goal:g} times that of 8 layers"
    axes.vlines(goal * few / 1e9, row - 0.4, row + 0.4, color=TARGET, linestyle=":", linewidth=1.5, label=label)
    imports = result["bytes_of_a_process_that_only_imports"] / 1e9
    axes.axvline(imports, color=GREY, linewidth=1, label="imports alone")
    name_rows(axes, [name for name, _ in models])
    axes.set(xlabel="peak of the process, GB", xlim=(0, None))
    return _with_legend(canvas, axes)


def distributed(result: Result) -> Figure:
    """Seconds of one worker and of two, and the seconds that the goal allows two in the same round."""
    one, two = (result["seconds"][workers] for workers in "12")
    canvas, axes = _canvas(2)
    samples_in_row(axes, 0, one, ORIGINAL)
    samples_in_row(axes, 1, two, BUNDLE)
    goals, label = [WORKERS_GOAL * seconds for seconds in one], f"goal: {WORKERS_GOAL:g} of one worker's, each round"
    axes.plot(goals, places_in_row(1, len(goals)), "|", color=TARGET, markersize=7, markeredgewidth=1.5, label=label)
    name_rows(axes, ["one worker", "two workers"])
    axes.set(xlabel="seconds of a conversion", xlim=(0, None))
    return _with_legend(canvas, axes)


def calibration(result: Result) -> Figure:
    """Both slowdowns of every target with their intervals and pairs, in percent off the target."""
    rows = [(f"{row['target']:g}", row) for row in result["targets"]]
    if "under_load" in result:
        rows.append((f"{result['under_load']['target']:g}, under load", result["under_load"]))
    canvas, axes = _canvas(1.6 * len(rows))
    band = 100 * result["tolerance"]
    axes.axvspan(-band, band, color=TARGET, alpha=0.15, linewidth=0)
    for edge in (-band, band):
        axes.axvline(edge, color=TARGET, linestyle="--", linewidth=1, label=f"goal: within {band:g} %")
    for number, (_, row) in enumerate(rows):
        if "slowdown" in row:
            _draw_slowdown(axes, number - 0.2, row["target"], row["trials"][-1], "o", "calibrated")
        if "again" in row:
            _draw_slowdown(axes, number + 0.2, row["target"], row["again"], "s", "in a fresh process")
        if "refused" in row:
            text, place = ("not confirmed", 0.2) if "slowdown" in row else ("no result: refused", 0)
            axes.text(0, number + place, text, ha="center", va="center", size=8)
    name_rows(axes, [name for name, _ in rows])
    axes.set(xlabel="slowdown, % off its target", ylabel="target")
    return _with_legend(canvas, axes)


def _draw_slowdown(axes: Axes, place: float, target: float, timed: Result, marker: str, label: str) -> None:
    """A median with its interval, and the ratio of every pair that it comes from, as percentages off the target."""
    pairs = zip(timed["seconds_bundle"], timed["seconds_original"], strict=True)
    low, middle, high = (
        100 * (value / target - 1) for value in (timed["ci95"][0], timed["slowdown"], timed["ci95"][1])
    )
    ratios = [100 * (bundle / original / target - 1) for bundle, original in pairs]
    axes.plot(ratios, places_in_row(place, len(ratios), 0.15), ".", color=GREY, markersize=4, alpha=0.6, label="pairs")
    reach = [[middle - low], [high - middle]]
    axes.errorbar(middle, place, xerr=reach, fmt=marker, color=BUNDLE, markersize=5, capsize=4, label=label)


def _canvas(rows: float) -> tuple[Figure, Axes]:
    canvas = Figure(figsize=(WIDTH, 1 + 0.5 * rows))
    return canvas, canvas.subplots()


def _with_legend(canvas: Figure, axes: Axes) -> Figure:
    """The figure with one entry a label over it, as wide as it is."""
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    canvas.legend(list(named.values()), list(named), loc="outside upper left", ncols=2, columnspacing=1.2)
    return canvas


PLOTS: dict[str, Callable[[Result], Figure]] = {
    plot.__name__: plot for plot in (forward, calibration, memory, convert, capture, distributed, publish)
}
"""How each result is drawn, by the name of its file."""


def plots(results: Path = RESULTS) -> dict[str, str]:
    """SVG texts by name, for every result file that exists."""
    files = {name: results / f"{name}.json" for name in PLOTS}
    with in_style():
        return {name: svg(PLOTS[name](read_json(file))) for name, file in files.items() if file.is_file()}


def main() -> None:
    """Draw every plot anew."""
    drawn = plots()
    for name in PLOTS:
        if name in drawn:
            write_text(FOLDER / f"{name}.svg", drawn[name])
        else:
            print(f"{name}: no plot, because {name}.json does not exist")


if __name__ == "__main__":
    main()
