"""Measure the forward pass of released MLPs at batch 1, beside plain reading of their bytes, a peer and torch.compile.

    python -m benchmarks.forward

There are two stacks of MLPs with random weights in float32: the shapes of SmolLM2-135M (30 layers) and one layer of
Llama-3-8B's shape. Every neuron has the same order, because the peer supports nothing else. In each round these take
their turn, and each round begins with another one: the released layers, the same compiled, the same with their terms
read as one product (`nn.Linear`), the peer (the paper's formulas, one product per order), and plain reading of as many
bytes. A turn is two calls, of which the second is timed: as in a decode loop, it reads what was read just before.

It takes half an hour on two cores, most of it for torch.compile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.command import typed
from benchmarks.measurement import write_result
from benchmarks.published_form import PublishedForm
from taylor_ops.conversion.terms import mlp_tensors
from taylor_ops.machine.devices import device_description
from taylor_ops.model.original import MlpWeights
from taylor_ops.modeling import taylor_mlp
from taylor_ops.modeling.taylor_mlp import TaylorMLP
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.expansion import fit
from taylor_ops.series.layout import Layout, layout

RESULT = Path(__file__).parent / "results" / "forward.json"
SILU = ACTIVATIONS["silu"]
ROUNDS = 9
ORDER = 12
RADIUS = 2.0


@dataclass(frozen=True)
class Shape:
    """A stack of MLPs: hidden size, neurons of a layer, layers."""

    hidden: int
    neurons: int
    layers: int


SHAPES = {"SmolLM2-135M": Shape(576, 1536, 30), "Llama-3-8B, one layer": Shape(4096, 14336, 1)}


def main() -> None:
    """Measure both stacks and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    stacks = {name: _measured(shape, rounds) for name, shape in SHAPES.items()}
    result = {
        "command": typed("forward"),
        "device": device_description(torch.device("cpu")),
        "order": ORDER,
        "stacks": stacks,
    }
    write_result(RESULT, "forward", result)
    _show(stacks)


def _measured(shape: Shape, rounds: int) -> dict[str, Any]:
    """Seconds of each contender in each round, and the ratios of their medians."""
    pairs = [_layer(shape, seed) for seed in range(shape.layers)]
    released, peer = nn.Sequential(*(a for a, _ in pairs)), nn.Sequential(*(b for _, b in pairs))
    hidden = torch.randn(1, 1, shape.hidden)
    size = sum(part.numel() * part.element_size() for part in released.parameters())
    memory = torch.ones(size // 4)
    matrix = memory[: len(memory) // shape.neurons * shape.neurons].view(-1, shape.neurons)
    vector = torch.ones(shape.neurons)
    compiled = torch.compile(released)
    contenders: dict[str, Callable[[], Tensor]] = {
        "released": lambda: released(hidden),
        "compiled": lambda: compiled(hidden),
        "one product": lambda: _as_one_product(released, hidden),
        "peer": lambda: peer(hidden),
        "read (sum)": lambda: memory.sum(),
        "read (matrix times vector)": lambda: matrix @ vector,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        difference = _difference(pairs[0], hidden)
        for contender in contenders.values():
            contender()
        for number in range(rounds):
            first = number % len(contenders)
            for name, contender in [*contenders.items()][first:] + [*contenders.items()][:first]:
                contender()
                start = time.perf_counter()
                contender()
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(samples) for name, samples in seconds.items()}
    # The faster of two ways to read is the bound: it is the stricter one.
    reading = min(median["read (sum)"], median["read (matrix times vector)"])
    return {
        "layers": shape.layers,
        "hidden_size": shape.hidden,
        "neurons": shape.neurons,
        "bytes": size,
        "seconds": seconds,
        "gigabytes_per_second": size / reading / 1e9,
        "relative_difference_from_the_peer": difference,
        "speed_over_peer": median["peer"] / median["released"],
        "speed_over_one_product": median["one product"] / median["released"],
        "share_of_the_bytes_bound": reading / median["released"],
        "gain_by_compiling": median["released"] / median["compiled"] - 1,
    }


def _as_one_product(released: nn.Module, hidden: Tensor) -> Tensor:
    """The output of `released` if no product is split into pieces."""
    pieces, taylor_mlp.FEW_ROWS = taylor_mlp.FEW_ROWS, 0
    try:
        output: Tensor = released(hidden)
    finally:
        taylor_mlp.FEW_ROWS = pieces
    return output


def random_layer(shape: Shape, seed: int) -> tuple[MlpWeights, Layout, TaylorMLP]:
    """A random gated MLP in float32 on the CPU, the layout of its series of order `ORDER`, and its released form."""
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int, scale: float) -> Tensor:
        return torch.randn(*sizes, generator=generator) * scale

    inner = (shape.neurons, shape.hidden)
    gate, up = random(*inner, scale=0.25 * shape.hidden**-0.5), random(*inner, scale=shape.hidden**-0.5)
    weights = MlpWeights(gate, up, random(*reversed(inner), scale=shape.neurons**-0.5))
    center, radius = torch.zeros(shape.neurons).double(), torch.full((shape.neurons,), RADIUS).double()
    stacked = layout(fit(SILU, center, radius, "chebyshev"), torch.full((shape.neurons,), ORDER))
    taylor = TaylorMLP(shape.hidden, "chebyshev", stacked.widths, "silu", gated=True)
    taylor.load_state_dict(mlp_tensors(weights, stacked, torch.float32))
    return weights, stacked, taylor.eval()


def _layer(shape: Shape, seed: int) -> tuple[TaylorMLP, PublishedForm]:
    """The same random MLP as it is released and in the published form, from one series of powers."""
    weights, _, taylor = random_layer(shape, seed)
    assert weights.up is not None
    center, degrees = torch.zeros(shape.neurons), torch.arange(ORDER + 1, dtype=torch.float64)
    derivatives = (SILU.taylor(center.double(), ORDER) * torch.lgamma(degrees + 1).exp()[:, None]).T.contiguous()
    terms = weights.down[:, :, None] * derivatives.float()
    return taylor, PublishedForm(weights.gate, weights.up, center, terms)


def _difference(pair: tuple[nn.Module, nn.Module], hidden: Tensor) -> float:
    """Difference between two forms of one layer, relative to its output. They have the same phi, but other series."""
    one, other = (model(hidden) for model in pair)
    return float((one - other).norm() / other.norm())


def _show(stacks: dict[str, dict[str, Any]]) -> None:
    table = Table("stack", "MB", "GB/s", "times the peer's speed", "share of the bytes bound", "gain by compiling")
    for name, stack in stacks.items():
        table.add_row(
            name,
            f"{stack['bytes'] / 1e6:.0f}",
            f"{stack['gigabytes_per_second']:.1f}",
            f"{stack['speed_over_peer']:.1f}",
            f"{stack['share_of_the_bytes_bound']:.2f}",
            f"{stack['gain_by_compiling']:+.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
