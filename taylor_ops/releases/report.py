"""The report of a release: one self-contained HTML file with its plots.

Equal records give equal bytes: plots carry no date, and the identifiers inside them come from their content.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from taylor_ops.audit.claims import conclusion, in_words, left_in_words
from taylor_ops.audit.record import AttackResult
from taylor_ops.exactness.record import Comparison, DataSetExactness, LayerError
from taylor_ops.presentation.drawing import BUNDLE as _BUNDLE
from taylor_ops.presentation.drawing import GREY as _GREY
from taylor_ops.presentation.drawing import ORIGINAL as _ORIGINAL
from taylor_ops.presentation.drawing import TARGET as _TARGET
from taylor_ops.presentation.drawing import WIDTH as _WIDTH
from taylor_ops.presentation.drawing import drawable as _drawable
from taylor_ops.presentation.drawing import in_style, name_rows
from taylor_ops.presentation.drawing import legend_above as _legend_above
from taylor_ops.presentation.drawing import svg_element as _svg
from taylor_ops.presentation.latency_plots import PlottedTrial, calibration_curve, time_per_token
from taylor_ops.presentation.templates import environment
from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.releases.headlines import headline_of
from taylor_ops.releases.record import Coverage, ReleaseRecord, Slowdown
from taylor_ops.storage.files import write_text


@dataclass(frozen=True)
class Plot:
    """A plot as an SVG element, with a title and a caption in words."""

    title: str
    caption: str
    svg: Markup


def write_report(record: ReleaseRecord, path: Path) -> list[Plot]:
    """Write the report of a release to `path` as a whole, and return its plots."""
    drawn = plots(record)
    templates = environment(autoescape=True)
    templates.filters |= {"duration": duration, "percent": _percent, "with_links": _with_links}
    templates.filters |= {"in_words": _in_words, "conclusion": _conclusion}
    text = templates.get_template("report.html.j2").render(
        record=record,
        headline=_unbroken(headline_of(record)),
        plots=drawn,
        prompts=sum(data_set.bundle.prompts for data_set in record.exactness.values()),
        prompts_equal=sum(data_set.bundle.prompts_equal for data_set in record.exactness.values()),
    )
    write_text(path, text)
    return drawn


def duration(seconds: float) -> str:
    """Seconds as text, in the unit that reads best."""
    if not math.isfinite(seconds):
        return figure(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _percent(share: float) -> str:
    return _unbroken(percent(share))


def _unbroken(text: str) -> str:
    # A line must not begin with the percent sign.
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _in_words(attack: AttackResult) -> str:
    timed = attack.rebuilt and attack.rebuilt.residual
    return in_words(attack.plain(), f"in {duration(attack.seconds)}", left_in_words(timed) if timed else None)


def _conclusion(attacks: Iterable[AttackResult]) -> str:
    return conclusion([attack.plain() for attack in attacks])


def _with_links(text: str) -> Markup:
    """Text in which every arXiv number is a link."""
    link = Markup('<a href="https://arxiv.org/abs/{0}">arXiv {0}</a>')
    parts = re.split(r"arXiv (\d{4}\.\d{5})", text)
    return Markup("").join(link.format(part) if index % 2 else part for index, part in enumerate(parts))


def plots(record: ReleaseRecord) -> list[Plot]:
    """The plots of a release, in the order of the report."""
    data_sets = list(record.exactness.values())
    with in_style():
        return [
            _orders(record.coverage),
            _bounds(record.coverage, record.layer_errors),
            _calibration(record.slowdown),
            _time_per_token(record.slowdown),
            _prompts_equal(data_sets),
            _divergence(data_sets),
        ]


def _orders(coverage: Coverage) -> Plot:
    canvas, axes = _canvas(2.6)
    layers = range(len(coverage.layers))
    for label, color, orders in (
        ("highest", _GREY, [layer.max_order for layer in coverage.layers]),
        ("mean", _BUNDLE, [layer.mean_order for layer in coverage.layers]),
    ):
        axes.plot(layers, _drawable(orders), "o-", color=color, markersize=3, linewidth=1, label=label)
    axes.set(xlabel="layer", ylabel="expansion order", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes)
    return Plot(
        title="Expansion order of each layer",
        caption=f"Mean of all neurons {fixed(coverage.mean_order, 2)}, {count(coverage.columns)} columns in all.",
        svg=_svg(canvas),
    )


def _bounds(coverage: Coverage, measured: Sequence[LayerError]) -> Plot:
    canvas, axes = _canvas(2.6)
    curves = (
        ("bound", _TARGET, [layer.bound for layer in coverage.layers]),
        ("rounding part", _GREY, [layer.rounding for layer in coverage.layers]),
        ("measured", _BUNDLE, [layer.largest for layer in measured]),
    )
    edge = _log_axis(axes, "y", [value for _, _, values in curves for value in values])
    for label, color, values in curves:
        drawn = _drawable(value or math.nan for value in values)
        axes.plot(range(len(values)), drawn, "o-", color=color, markersize=3, linewidth=1, label=label)
        exact = [layer for layer, value in enumerate(values) if value == 0]
        axes.plot(exact, [edge] * len(exact), "v", color=color, markersize=5, clip_on=False)
    axes.set(xlabel="layer", ylabel="error / output norm")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes)
    return Plot(
        title="Error of the output of each layer",
        caption="A-priori bound, and the largest error measured on held-out prompts, as fractions of the median output "
        "norm over the calibration text. Triangle at the edge: zero.",
        svg=_svg(canvas),
    )


def _calibration(slowdown: Slowdown) -> Plot:
    candidates = [
        PlottedTrial(trial.plan.columns, trial.predicted, trial.slowdown, trial.ci95) for trial in slowdown.trials
    ]
    return Plot(
        title="Calibration of the slowdown",
        caption="The candidates in the order in which they were measured; the last was released. The line was "
        "predicted from the bytes of the columns alone, before anything was measured.",
        svg=_svg(calibration_curve(slowdown.target, slowdown.tolerance, slowdown.trials[0].plan.neurons, candidates)),
    )


def _time_per_token(slowdown: Slowdown) -> Plot:
    chosen = slowdown.trials[-1]
    again = (
        f" Pairs timed again, of all candidates: {count(slowdown.disturbed)}. Other programs had used the processor."
    )
    return Plot(
        title="Time per token",
        caption="Every sample of the released candidate, first at the top, and the medians: "
        f"{len(chosen.seconds_bundle)} pairs in turn, {slowdown.new_tokens} new tokens each."
        + (again if slowdown.disturbed else ""),
        svg=_svg(time_per_token(chosen.seconds_original, chosen.seconds_bundle, slowdown.new_tokens)),
    )


def _prompts_equal(data_sets: Sequence[DataSetExactness]) -> Plot:
    canvas, axes = _canvas(1.1 + 0.55 * len(data_sets))
    for label, color, above, runs in _runs(data_sets):
        shares = [100 * run.prompts_equal / run.prompts if run.prompts else 0 for run in runs]
        places = [row - above for row in range(len(runs))]
        axes.barh(places, shares, height=0.32, color=color, label=label)
        for place, run in zip(places, runs, strict=True):
            axes.text(101, place, f"{count(run.prompts_equal)} of {count(run.prompts)}", size=8, va="center")
    name_rows(axes, [data_set.name for data_set in data_sets])
    axes.set(xlabel="prompts equal to the end, %", xlim=(0, 125), xticks=range(0, 101, 25))
    _legend_above(axes)
    return Plot(
        title="Prompts equal to the end",
        caption="The bundle, and for comparison the original itself in another execution (noise floor).",
        svg=_svg(canvas),
    )


def _divergence(data_sets: Sequence[DataSetExactness]) -> Plot:
    canvas, axes = _canvas(1.1 + 0.55 * len(data_sets))
    found = [kl for _, _, _, runs in _runs(data_sets) for run in runs for kl in (run.kl_mean, run.kl_max)]
    edge = _log_axis(axes, "x", found)
    for label, color, above, runs in _runs(data_sets):
        places = [row - above for row in range(len(runs))]
        for place, run in zip(places, runs, strict=True):
            ends = _drawable(edge if kl == 0 else kl for kl in (run.kl_mean, run.kl_max))
            axes.plot(ends, [place, place], color=color, linewidth=1)
            if run.kl_mean == 0:
                axes.plot(edge, place, "<", color=color, markersize=6, clip_on=False)
        most, mean = _drawable(run.kl_max for run in runs), _drawable(run.kl_mean for run in runs)
        axes.plot(most, places, "o", color=color, markerfacecolor="white", markersize=5)
        axes.plot(mean, places, "o", color=color, markersize=5, label=label)
    name_rows(axes, [data_set.name for data_set in data_sets])
    axes.set(xlabel="KL divergence from the original, nats per token")
    _legend_above(axes)
    return Plot(
        title="KL divergence per token",
        caption="Filled: the mean. Hollow: the largest of any token. Triangle at the edge: zero.",
        svg=_svg(canvas),
    )


def _runs(data_sets: Sequence[DataSetExactness]) -> list[tuple[str, str, float, list[Comparison]]]:
    """Label, colour, place above its row and comparisons of the two runs that are compared with the original."""
    return [
        ("bundle", _BUNDLE, 0.18, [data_set.bundle for data_set in data_sets]),
        ("noise floor", _ORIGINAL, -0.18, [data_set.floor for data_set in data_sets]),
    ]


def _canvas(height: float) -> tuple[Figure, Axes]:
    canvas = Figure(figsize=(_WIDTH, height))
    return canvas, canvas.subplots()


def _log_axis(axes: Axes, direction: str, values: Iterable[float]) -> float:
    """Make one axis logarithmic and wide enough for all positive values. Returns its edge, where zeros are drawn."""
    positive = [value for value in values if 0 < value < math.inf] or [1.0]
    # Below the smallest positive floats there is no number at which an axis could start.
    edge = max(min(positive) / 8, 1e-300)
    axes.set(**{f"{direction}scale": "log", f"{direction}lim": (edge, max(positive) * 5)})
    axis = getattr(axes, f"{direction}axis")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{math.log10(value):.0f}"))
    axis.set_minor_formatter(NullFormatter())
    return edge
