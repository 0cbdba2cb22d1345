"""Measure on one GPU how fast a layer of Llama-3-8B's shape is converted, and how fast it decodes.

    python -m benchmarks.gpu

The layer has random weights and every neuron is of order 12, once in float32 and once in bfloat16. In each round every
contender takes its turn once.

Converting: the output weights go to the device, which makes the terms. Each block of terms is copied to the host while
the next is made. The contender copies as many bytes from the device to the host and does nothing else. A release also
writes the terms to a disk; this measures what the device allows.

Decoding: one token goes through the released layer, or through the plain MLP that it stands for. The contender reads as
many bytes as the released layer has.

It takes two minutes and 12 GB of the GPU. Without a GPU it exits with status 2. With `--rounds` nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.command import typed
from benchmarks.forward import ORDER, SHAPES, Shape, random_layer
from benchmarks.measurement import write_result
from taylor_ops.conversion.terms import terms
from taylor_ops.machine.devices import DTYPES, device_description
from taylor_ops.model.original import MlpWeights
from taylor_ops.series.layout import Layout

RESULT = Path(__file__).parent / "results" / "gpu.json"
SHAPE = SHAPES["Llama-3-8B, one layer"]
MEASURED = ("float32", "bfloat16")
ROUNDS = 15
TOKENS = 20
CONVERT_GOAL, DECODE_GOAL = 0.8, 0.8


class PlainMLP(nn.Module):
    """The gated MLP with silu that the released layer stands for, from its weights."""

    def __init__(self, weights: MlpWeights) -> None:
        super().__init__()
        assert weights.up is not None
        self.gate, self.up, self.down = (
            nn.Parameter(weight, requires_grad=False) for weight in (weights.gate, weights.up, weights.down)
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Output [..., H] for hidden states [..., H]."""
        factor = functional.linear(hidden_states, self.up)
        return functional.linear(functional.silu(functional.linear(hidden_states, self.gate)) * factor, self.down)


def main() -> int:
    """Measure, and write and print the result. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"in place of {ROUNDS}")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu measures on a GPU, and torch sees none here: run it on a GPU worker", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    result = {
        "command": typed("gpu"),
        "device": device_description(device),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "order": ORDER,
        "layer": asdict(SHAPE),
        "goal": {"convert": CONVERT_GOAL, "decode": DECODE_GOAL},
        "dtypes": measured(device, SHAPE, arguments.rounds or ROUNDS, TOKENS),
    }
    if not arguments.rounds:
        write_result(RESULT, "gpu", result)
    _show(result)
    return 0


def measured(device: torch.device, shape: Shape, rounds: int, tokens: int) -> dict[str, Any]:
    """Seconds of every contender in each round by dtype, and the ratios of their medians. Decoding counts per token."""
    weights, stacked, taylor = random_layer(shape, seed=0)
    found = {}
    with torch.inference_mode():
        for name in MEASURED:
            dtype = DTYPES[name]
            plain, released = PlainMLP(weights).to(device, dtype), taylor.to(device, dtype)
            converting = _converting(weights.down.to(dtype), stacked, dtype, device, rounds)
            found[name] = {"convert": converting, "decode": _decoding(released, plain, device, rounds, tokens)}
    return found


def _converting(
    weight: Tensor, stacked: Layout, dtype: torch.dtype, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Making the terms of output weights [H, F], which lie on the host, against copying their bytes to the host."""
    made = terms(weight, stacked, dtype, device)
    nbytes = made.nbytes
    whole = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    host = torch.empty(nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")

    def convert() -> None:
        for _block in made.blocks():
            pass

    seconds = _in_turn({"convert": convert, "copy": lambda: host.copy_(whole, non_blocking=True)}, device, rounds)
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "bytes": nbytes,
        "seconds": seconds,
        "gigabytes_per_second": {name: nbytes / middle / 1e9 for name, middle in median.items()},
        "share_of_the_copy": median["copy"] / median["convert"],
    }


def _decoding(released: nn.Module, plain: PlainMLP, device: torch.device, rounds: int, tokens: int) -> dict[str, Any]:
    """One token after another through the released layer and the plain one, against reading the released bytes."""
    dtype, (hidden, neurons) = plain.down.dtype, plain.down.shape
    token = torch.randn(1, 1, hidden, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    size, plain_size = (sum(part.nbytes for part in model.parameters()) for model in (released, plain))
    memory = torch.ones(size // dtype.itemsize, dtype=dtype, device=device)
    matrix = memory[: len(memory) // neurons * neurons].view(-1, neurons)
    vector = torch.ones(neurons, dtype=dtype, device=device)
    each: dict[str, Callable[[], Tensor]] = {
        "released": lambda: released(token),
        "plain": lambda: plain(token),
        "read (sum)": lambda: memory.sum(),
        "read (matrix times vector)": lambda: matrix @ vector,
    }
    repeated = {name: _times(work, tokens) for name, work in each.items()}
    seconds = {name: [taken / tokens for taken in all_] for name, all_ in _in_turn(repeated, device, rounds).items()}
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    # The faster of two ways to read is the bound: it is the stricter one.
    reading = min(median["read (sum)"], median["read (matrix times vector)"])
    expected = plain(token).float()
    return {
        "bytes": size,
        "plain_bytes": plain_size,
        "seconds": seconds,
        "gigabytes_per_second": size / reading / 1e9,
        "share_of_the_bytes_bound": reading / median["released"],
        "slowdown": median["released"] / median["plain"],
        "relative_difference_from_the_plain": float((released(token).float() - expected).norm() / expected.norm()),
    }


def _times(work: Callable[[], object], tokens: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(tokens):
            work()

    return repeated


def _in_turn(
    contenders: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Seconds until a device has done the work of each contender, in each round. A first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            _wait_for(device)
            start = time.perf_counter()
            work()
            _wait_for(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _show(result: dict[str, Any]) -> None:
    table = Table(
        "dtype",
        "convert, GB/s",
        "copy, GB/s",
        "convert / copy",
        "reading, GB/s",
        "share of the bytes bound",
        "slowdown",
    )
    for name, found in result["dtypes"].items():
        converting, decoding = found["convert"], found["decode"]
        table.add_row(
            name,
            *(f"{converting['gigabytes_per_second'][one]:.1f}" for one in ("convert", "copy")),
            f"{converting['share_of_the_copy']:.2f}",
            f"{decoding['gigabytes_per_second']:.0f}",
            f"{decoding['share_of_the_bytes_bound']:.2f}",
            f"{decoding['slowdown']:.1f} ({decoding['bytes'] / decoding['plain_bytes']:.1f} times the bytes)",
        )
    goal = result["goal"]
    Console().print(
        f"{result['device']}, one layer of Llama-3-8B's shape, order {result['order']}",
        table,
        f"goals: {goal['convert']} of the copy, {goal['decode']} of the bytes bound",
        sep="\n",
    )


if __name__ == "__main__":
    sys.exit(main())
