"""How many terms the MLPs of Llama-3-8B need in either basis, from published ranges and random weights.

    python -m benchmarks.llama_ranges --data FOLDER [--limit N]

FOLDER holds llama3_8b_gate_ranges.safetensors: least and largest gate pre-activation z of 32 layers x 14336 neurons,
over 82 million tokens. The weights of that model are not needed. These assumptions replace them:

- Output weights are independent normal numbers, [4096, 14336], the same for every layer. Their scale cancels.
- The gate factor u_j is at most as large as z_j: the file has no range for it.
- In a typical token z_j is normal on either side of 0 and reaches its captured ends at 5.6 standard deviations, where
  the largest of 82 million normal numbers lies; u_j likewise, and all are independent. Errors are relative to the
  median output norm of 256 such tokens.

Everything else is as in a release: `fit_layer` widens the ranges and factors by the default margin and distributes a
tolerance of 1e-2 of the output norm over the neurons, and orders go up to 128. A neuron is served if one of these
orders keeps its share of the tolerance. In powers, cancellation between the terms must also cost no more than this
share after rounding to float32. There are bounds for the neurons served, and for all.

For layer 31 the bound is compared with the errors on random inputs: real shapes, stored terms, the rest in float64.
Half of the tokens are typical, half have every z_j anywhere in its captured range and every u_j at an end of its own.

It takes about four minutes on one core, and 2 GB. It writes benchmarks/results/llama_ranges.json and
docs/llama3-ranges.svg; without `--data` it only draws the plot anew from the JSON. `--limit N` tries the last N layers
and writes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.command import typed
from benchmarks.measurement import write_result
from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.conversion.terms import terms
from taylor_ops.modeling.taylor_mlp import basis_features
from taylor_ops.presentation.drawing import BUNDLE, GREY, ORIGINAL, TARGET, in_style
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.bound import Bound, OutputWeights
from taylor_ops.series.expansion import Expansion, orders_for
from taylor_ops.series.fitted_layer import FittedLayer, fit_layer
from taylor_ops.series.layout import layout
from taylor_ops.series.ranges import LayerRange
from taylor_ops.storage.files import read_json

RESULT = Path(__file__).parent / "results" / "llama_ranges.json"
PLOT = Path("docs/llama3-ranges.svg")
RANGES = "llama3_8b_gate_ranges.safetensors"
SILU = ACTIVATIONS["silu"]
HIDDEN = 4096
TOLERANCE = 1e-2
MARGIN = Conversion().range_margin
MAX_ORDER = Conversion().max_order
TOKENS = 256
DEVIATIONS = 5.6
MEASURED_LAYER = 31
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BASES: tuple[Basis, ...] = ("chebyshev", "taylor")
_NEURONS_AT_ONCE = 512


@dataclass(frozen=True)
class Layer:
    """One layer with F neurons.

    Attributes:
        low: Least captured z, [F] float64.
        high: Largest captured z, [F] float64.
        factor: Largest |u|, [F] float64.
        z: Pre-activations of typical tokens, [T, F] float64.
        u: Gate factors of typical tokens, [T, F] float64.
        norm: Median output norm of these tokens, with the weights that all layers share.
    """

    low: Tensor
    high: Tensor
    factor: Tensor
    z: Tensor
    u: Tensor
    norm: float


def main() -> None:
    """Fit all layers, measure one, and write the result and its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"folder with {RANGES}")
    parser.add_argument("--limit", type=int, help="layers to try")
    arguments = parser.parse_args()
    if arguments.data:
        result = _result(load_file(arguments.data / RANGES), arguments.limit)
        if arguments.limit:
            return
        write_result(RESULT, "llama_ranges", result)
    PLOT.parent.mkdir(exist_ok=True)
    write_plot(read_json(RESULT), PLOT)


def _result(ranges: dict[str, Tensor], limit: int | None) -> dict[str, Any]:
    low, high = ranges["min"].double(), ranges["max"].double()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(HIDDEN, low.shape[1], generator=generator)
    print("output weights: norms and alignment", flush=True)
    weights = OutputWeights.of(weight)
    numbers = range(len(low))[-limit if limit else 0 :]
    rows: list[dict[str, Any]] = []
    measured: dict[str, Any] = {}
    for number in numbers:
        layer = typical_layer(low[number], high[number], weight, generator)
        row, fit = _row(layer, weights)
        rows.append({"layer": number, **row})
        print(_line(rows[-1]), flush=True)
        if number == MEASURED_LAYER:
            measured = {"layer": number, **_measured(layer, weight, fit, generator)}
            print(measured, flush=True)
    return {
        "command": typed("llama_ranges"),
        "ranges": RANGES,
        "neurons": low.shape[1],
        "hidden_size": HIDDEN,
        "tolerance": TOLERANCE,
        "range_margin": MARGIN,
        "max_order": MAX_ORDER,
        "standard_deviations_to_the_captured_ends": DEVIATIONS,
        "alignment": weights.alignment,
        "layers": rows,
        "measured": measured,
    }


def typical_layer(low: Tensor, high: Tensor, weight: Tensor, generator: torch.Generator) -> Layer:
    """The layer with captured ends `low`, `high` [F], and its typical tokens."""
    factor = torch.maximum(low.abs(), high.abs())
    draws = torch.randn(2, TOKENS, len(low), generator=generator, dtype=torch.float64) / DEVIATIONS
    z = draws[0] * torch.where(draws[0] > 0, high.clamp_min(0), -low.clamp_max(0))
    z = torch.maximum(torch.minimum(z, high), low)
    u = (draws[1] * factor).clamp(-factor, factor)
    # float32 is enough for what only scales the figures.
    output = (SILU.value(z) * u).float() @ weight.T
    return Layer(low, high, factor, z, u, float(torch.linalg.vector_norm(output, dim=-1).median()))


def _row(layer: Layer, weights: OutputWeights) -> tuple[dict[str, Any], FittedLayer]:
    """Figures of one layer for both bases, and its Chebyshev fit."""
    captured = LayerRange(layer.low, layer.high, layer.factor, layer.norm, weights)
    fitted = {basis: fit_layer(SILU, captured, Conversion(basis=basis, tolerance=TOLERANCE)) for basis in BASES}
    chebyshev = fitted["chebyshev"]
    center, radius = chebyshev.expansion.center, chebyshev.expansion.radius
    row: dict[str, Any] = {
        "output_norm": layer.norm,
        "neurons_that_leave_their_interval": int(_leave(chebyshev).sum()),
        "converges_on_the_captured_range": _share(_converges(layer.low, layer.high)),
        "converges_on_the_widened_interval": _share(_converges(center - radius, center + radius)),
    }
    for basis, fit in fitted.items():
        # What rounding takes of the tolerance is that of Chebyshev: in powers it would take all of it.
        fit = replace(fit, allowed=chebyshev.allowed)
        orders = fit.orders(1.0, MAX_ORDER).clamp_max(MAX_ORDER)
        served = (fit.error_at(orders) <= fit.allowed) & ~fit.loses_digits(orders)
        only_served = replace(fit, factor=torch.where(served, fit.factor, 0.0))
        row[basis] = {
            "neurons_served": _share(served),
            "orders": _spread(orders[served]),
            "bound": {
                whose: {name: _figures(replace(part, dtype=dtype).bound(orders)) for name, dtype in DTYPES.items()}
                for whose, part in (("served", only_served), ("all", fit))
            },
        }
    row["own_series_served"] = _share(_own_series_serves(chebyshev))
    return row, chebyshev


def _own_series_serves(fit: FittedLayer) -> Tensor:
    """The neurons [F] that phi's own Taylor series about the midpoint serves within the highest order."""
    expansion = fit.expansion
    degrees = torch.arange(len(expansion.chebyshev), dtype=torch.float64)[:, None]
    own = SILU.taylor(expansion.center, len(degrees) - 1) * expansion.radius**degrees
    orders = orders_for(own[1:].abs().flip(0).cumsum(0).flip(0), fit.allowed, MAX_ORDER)
    used = torch.where(degrees <= orders, own.abs(), 0.0).sum(0)
    keeps = (used - expansion.chebyshev.abs().sum(0)) * torch.finfo(torch.float32).eps <= fit.allowed
    return (orders <= MAX_ORDER) & keeps & (expansion.radius < SILU.convergence_radius(expansion.center))


def _leave(fit: FittedLayer) -> Tensor:
    """The neurons [F] whose widened range leaves their interval."""
    center, radius = fit.expansion.center, fit.expansion.radius
    return (fit.low < center - radius) | (fit.high > center + radius)


def _converges(low: Tensor, high: Tensor) -> Tensor:
    """The ranges [F] on which the Taylor series about the midpoint converges."""
    return (high - low) / 2 < SILU.convergence_radius((high + low) / 2)


def _figures(bound: Bound) -> dict[str, float]:
    return {"truncation": float(bound.truncation), "rounding": float(bound.rounding), "total": float(bound.total)}


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _spread(orders: Tensor) -> dict[str, float]:
    """Mean, percentiles and largest of orders [F]."""
    percentiles = torch.quantile(orders.double(), torch.tensor([0.1, 0.5, 0.9]).double(), interpolation="nearest")
    named = zip(("p10", "p50", "p90"), percentiles.tolist(), strict=True)
    return {"mean": float(orders.double().mean()), "max": float(orders.max()), **dict(named)}


def _measured(layer: Layer, weight: Tensor, fit: FittedLayer, generator: torch.Generator) -> dict[str, Any]:
    """Errors of the layer's output on random inputs, relative to the typical output norm, beside their bounds."""
    half = TOKENS // 2
    anywhere = torch.rand(half, len(layer.low), generator=generator, dtype=torch.float64)
    ends = torch.randint(0, 2, (half, len(layer.low)), generator=generator) * 2 - 1
    z = torch.cat([layer.z[:half], layer.low + anywhere * (layer.high - layer.low)])
    u = torch.cat([layer.u[:half], ends * layer.factor])
    orders = fit.orders(1.0, MAX_ORDER)
    result: dict[str, Any] = {"tokens": TOKENS, "columns": int((orders + 1).sum()), "terms_in": {}}
    exact = (u * SILU.value(z)) @ weight.double().T
    for name, dtype in DTYPES.items():
        released = _released(weight, fit.expansion, orders, z, u, dtype)
        error = torch.linalg.vector_norm(released - exact, dim=-1) / layer.norm
        each = replace(fit, dtype=dtype, factor=u).bound(orders).total
        result["terms_in"][name] = {
            "bound_of_the_layer": float(replace(fit, dtype=dtype).bound(orders).total),
            "typical_tokens": _beside(error[:half], each[:half]),
            "tokens_at_the_ends": _beside(error[half:], each[half:]),
        }
    return result


def _beside(error: Tensor, bound: Tensor) -> dict[str, Any]:
    """Errors [T] beside the bounds [T] that hold for each token's own u."""
    return {
        "error_median": float(error.median()),
        "error_max": float(error.max()),
        "bound_of_each_median": float(bound.median()),
        "largest_error_over_its_bound": float((error / bound).max()),
        "every_error_within_its_bound": bool((error <= bound).all()),
    }


def _released(weight: Tensor, expansion: Expansion, orders: Tensor, z: Tensor, u: Tensor, dtype: torch.dtype) -> Tensor:
    """Output [T, H] float64 of the released layer with terms and carriers in `dtype`, a few neurons at a time."""
    output = torch.zeros(len(z), len(weight), dtype=torch.float64)
    for neurons in torch.split(torch.arange(len(orders)), _NEURONS_AT_ONCE):
        stacked = layout(_of(expansion, neurons), orders[neurons])
        places = neurons[stacked.permutation]
        factor = u[:, places]
        inside = z[:, places].clamp(stacked.center - stacked.radius, stacked.center + stacked.radius)
        t = (inside - stacked.center) / stacked.radius
        features = basis_features(expansion.basis, stacked.widths, t, factor)
        beyond = SILU.value(z[:, places]) - SILU.value(inside)
        for order in range(2):
            features[order] = features[order] + factor * beyond * stacked.carrier[order].to(dtype).double()
        output += torch.cat(features, dim=-1) @ terms(weight[:, neurons], stacked, dtype).whole().double().T
    return output


def _of(expansion: Expansion, neurons: Tensor) -> Expansion:
    """The expansions of the neurons with the numbers `neurons` [F'] int64."""
    return Expansion(
        center=expansion.center[neurons],
        radius=expansion.radius[neurons],
        chebyshev=expansion.chebyshev[:, neurons],
        taylor=None if expansion.taylor is None else expansion.taylor[:, neurons],
    )


def _line(row: dict[str, Any]) -> str:
    cells = [f"layer {row['layer']:2}", f"own series serves {row['own_series_served']:7.2%}"]
    for basis in BASES:
        one = row[basis]
        orders, bound = one["orders"], one["bound"]["served"]["float32"]
        cells.append(
            f"{basis}: order {orders['mean']:5.2f} (max {orders['max']:.0f}), {one['neurons_served']:7.2%} served, "
            f"truncation {bound['truncation']:.1e}, rounding {bound['rounding']:.1e}"
        )
    return " | ".join(cells)


# The plot

_MORE_STYLE = {
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "svg.hashsalt": "llama-ranges",
    # Powers of ten on the axes are formulas; no name in this plot comes from outside.
    "text.parse_math": True,
}


def write_plot(result: dict[str, Any], path: Path) -> None:
    """Draw orders, share of neurons and bound of every layer; equal results give equal bytes."""
    with in_style(_MORE_STYLE):
        figure = Figure(figsize=(7.6, 8.6))
        orders, shares, bounds = figure.subplots(3, 1, sharex=True)
        _draw_orders(orders, result)
        _draw_shares(shares, result)
        _draw_bounds(bounds, result)
        bounds.set_xlabel("layer")
        bounds.xaxis.set_major_locator(MultipleLocator(4))
        bounds.set_xlim(-0.5, len(result["layers"]) - 0.3)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_orders(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["layers"]
    x = [row["layer"] for row in rows]
    of = {key: [row["chebyshev"]["orders"][key] for row in rows] for key in ("p10", "p90", "mean", "max")}
    axes.plot(x, of["max"], color=ORIGINAL, linestyle="none", marker="_", markersize=7, label="Chebyshev, largest")
    axes.fill_between(
        x, of["p10"], of["p90"], color=ORIGINAL, alpha=0.18, linewidth=0, label="Chebyshev, 10th to\n90th percentile"
    )
    axes.plot(x, of["mean"], color=ORIGINAL, label="Chebyshev, mean")
    axes.plot(
        x, [row["taylor"]["orders"]["mean"] for row in rows], color=BUNDLE, label="Taylor, mean of\nneurons served"
    )
    axes.set_ylim(0, result["max_order"] + 4)
    axes.yaxis.set_major_locator(MultipleLocator(16))
    axes.set_ylabel("expansion order")
    axes.set_title(f"Order a neuron needs (tolerance {result['tolerance']:g} of the output norm)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_shares(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["layers"]
    x = [row["layer"] for row in rows]
    for label, color, style, values in (
        ("Chebyshev", ORIGINAL, "-", [row["chebyshev"]["neurons_served"] for row in rows]),
        (
            "Taylor, Chebyshev in powers\nwhere own series is slow",
            BUNDLE,
            "-",
            [row["taylor"]["neurons_served"] for row in rows],
        ),
        ("Taylor, own series only", BUNDLE, "--", [row["own_series_served"] for row in rows]),
        (
            "own series converges on\nthe captured range",
            GREY,
            ":",
            [row["converges_on_the_captured_range"] for row in rows],
        ),
        ("the same, range widened", GREY, "-.", [row["converges_on_the_widened_interval"] for row in rows]),
    ):
        axes.plot(x, values, color=color, linestyle=style, label=label)
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    axes.set_ylabel("share of neurons")
    axes.set_title(f"Neurons that keep their share of the tolerance within order {result['max_order']}, float32")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_bounds(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["layers"]
    x = [row["layer"] for row in rows]
    for label, color, style, basis, dtype, part in (
        ("Chebyshev, bfloat16", TARGET, "-", "chebyshev", "bfloat16", "total"),
        ("Taylor, float32", BUNDLE, "-", "taylor", "float32", "total"),
        ("of it rounding", BUNDLE, "--", "taylor", "float32", "rounding"),
        ("Chebyshev, float32", ORIGINAL, "-", "chebyshev", "float32", "total"),
        ("of it rounding", ORIGINAL, "--", "chebyshev", "float32", "rounding"),
    ):
        values = [row[basis]["bound"]["served"][dtype][part] for row in rows]
        axes.plot(x, values, color=color, linestyle=style, label=label)
    measured = result["measured"]
    for color, dtype in ((TARGET, "bfloat16"), (ORIGINAL, "float32")):
        error = measured["terms_in"][dtype]["tokens_at_the_ends"]["error_max"]
        label = f"largest measured, {dtype}"
        axes.plot(measured["layer"], error, color=color, linestyle="none", marker="o", markersize=5, label=label)
    axes.axhline(result["tolerance"], color=GREY, linestyle=":", label="tolerance")
    axes.set_yscale("log")
    axes.set_ylabel("error / output norm")
    axes.set_title("Bound on the output error of the neurons served")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


if __name__ == "__main__":
    main()
