"""Measure how fast a conversion writes, against a plain safetensors write of the same files.

    python -m benchmarks.convert

The model is a Llama with random weights in float32, whose released form has more than 2 GB. Each round converts it, and
saves the tensors of its shards, which are in memory already, by safetensors one file after the other. Which of the two
comes first alternates. Both end when every file is synced to the disk; the time until it is written is reported too.
Both begin with an idle disk, just after files of that size were written and removed: in a virtual machine the first use
of memory that was free for long is several times as slow, and would count against whichever comes after a pause.

It takes a few minutes on two cores, 7 GB of disk (in the folder for temporary files, unless `--scratch` names another)
and 4 GB of memory. With `--layers` or `--rounds` nothing is written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from benchmarks.command import typed
from benchmarks.measurement import write_result
from benchmarks.synthetic import Sizes, write_llama
from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.texts import Calibration
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.machine.devices import device_description
from taylor_ops.model.original import Original
from taylor_ops.storage.files import size

RESULT = Path(__file__).parent / "results" / "convert.json"
CPU = torch.device("cpu")
SIZES = Sizes(hidden_size=1024, intermediate_size=2816, num_hidden_layers=8)
CALIBRATION = Calibration(tokens=2048, sequence_tokens=256)
ROUNDS = 9
GOAL = 0.8


def main() -> None:
    """Measure, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"in place of {ROUNDS}")
    parser.add_argument("--layers", type=int, help=f"in place of {SIZES.num_hidden_layers}")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure")
    arguments = parser.parse_args()
    sizes = replace(SIZES, num_hidden_layers=arguments.layers) if arguments.layers else SIZES
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        measured = _measured(Path(scratch), sizes, arguments.rounds or ROUNDS)
    result = {
        "command": typed("convert"),
        "device": device_description(CPU),
        "model": asdict(sizes),
        "conversion": Conversion().model_dump(mode="json"),
        "goal": GOAL,
        **measured,
    }
    if not arguments.rounds and not arguments.layers:
        write_result(RESULT, "convert", result)
    _show(result)


def _measured(scratch: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Seconds of each contender in each round, and the ratios of their throughputs."""
    source, conversion = write_llama(scratch / "original", sizes), Conversion()
    captured = capture(source, conversion.dtype, CALIBRATION, CPU, scratch / "ranges", _silent)
    subject = Subject(Original(source), scratch / "ranges" / captured.file, conversion)
    plan = subject.expansions().ladder()[0]
    record = convert(subject, plan, scratch / "first", _silent)
    shards = {path.name: load_file(path) for path in sorted((scratch / "first").glob("*.safetensors"))}
    shutil.rmtree(scratch / "first")

    def save(folder: Path) -> None:
        folder.mkdir()
        for name, tensors in shards.items():
            save_file(tensors, folder / name, metadata={"format": "pt"})

    contenders: dict[str, Callable[[Path], object]] = {
        "convert": lambda folder: convert(subject, plan, folder, _silent),
        "plain": save,
    }
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            save(scratch / "before")
            shutil.rmtree(scratch / "before")
            seconds[name].append(_timed(contenders[name], scratch / name))
    return {
        "bytes": record.bytes,
        "shards": len(shards),
        "mean_order": plan.mean_order,
        "seconds": seconds,
        "ratio": {until: _ratio(seconds, until) for until in ("written", "synced")},
    }


def _timed(contender: Callable[[Path], object], folder: Path) -> dict[str, float]:
    """Seconds until all files of a new folder are written, and until they are synced; the folder is removed."""
    os.sync()
    start = time.perf_counter()
    contender(folder)
    written = time.perf_counter() - start
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            os.fsync(file)
    synced = time.perf_counter() - start
    shutil.rmtree(folder)
    return {"written": written, "synced": synced}


def _ratio(seconds: dict[str, list[dict[str, float]]], until: str) -> dict[str, Any]:
    """Throughput of the conversion over that of the plain write: median, and each round."""
    pairs = zip(seconds["plain"], seconds["convert"], strict=True)
    rounds = [plain[until] / converted[until] for plain, converted in pairs]
    return {"median": statistics.median(rounds), "rounds": rounds}


def _show(result: dict[str, Any]) -> None:
    table = Table(
        "",
        "plain, MB/s",
        "convert, MB/s",
        "ratio",
        "of the rounds",
        title=f"{size(result['bytes'])} of shards, medians",
    )
    for until, ratio in result["ratio"].items():
        throughput = [
            result["bytes"] / statistics.median(one[until] for one in result["seconds"][name]) / 1e6
            for name in ("plain", "convert")
        ]
        table.add_row(
            f"until {until}",
            *(f"{value:.0f}" for value in throughput),
            f"{ratio['median']:.2f}",
            f"{min(ratio['rounds']):.2f} to {max(ratio['rounds']):.2f}",
        )
    Console().print(table, f"goal: {result['goal']} until synced")


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
