"""Measure how much faster two Dask workers convert a model than one.

    python -m benchmarks.distributed

The model is a synthetic Llama whose conversion is bound by computation: it has many neurons for its hidden size, so
that fitting series takes many times as long as writing terms. Its layers fill eight parts, so that each of two workers
gets as many. Two clusters of one and two workers, with one thread each, run all the time. The task runner of a release
converts the same model on both in turn. The result is the median ratio over the rounds.

It needs the extra `dask`, and six minutes on two cores. The result means nothing if the cores do other work.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import typed
from benchmarks.measurement import write_result
from flows.commands.options import quiet_tools
from taylor_ops.storage.files import sha256_of_tree

RESULT = Path(__file__).parent / "results" / "distributed.json"
WORKERS = (1, 2)
ROUNDS = 5
LAYERS = 312
HIDDEN, NEURONS = 16, 4096


def main() -> None:
    """Convert on both clusters in turn and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--folder", type=Path, help="where to write; a disk in memory keeps the disk out of it")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    quiet_tools()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        result = _measured(Path(scratch), given.layers, given.rounds)
    write_result(given.result, "distributed", result)
    _show(result)


def _measured(scratch: Path, layers: int, rounds: int) -> dict[str, Any]:
    """Seconds of every conversion by the number of workers. The first on each cluster is not counted."""
    import torch
    from distributed import LocalCluster
    from prefect import flow

    from flows.run.runners import carried_by
    from taylor_ops.capture.capture import capture
    from taylor_ops.config.conversion import Conversion, Execution
    from taylor_ops.config.texts import Calibration
    from taylor_ops.conversion.convert import convert
    from taylor_ops.conversion.terms import Subject
    from taylor_ops.machine.devices import device_description
    from taylor_ops.model.original import Original
    from tests.support.tiny_models import save_tiny_model

    cpu, conversion = torch.device("cpu"), Conversion()
    original = save_tiny_model(
        scratch / "original", hidden_size=HIDDEN, intermediate_size=NEURONS, num_hidden_layers=layers
    )
    calibration = Calibration(tokens=512, sequence_tokens=128)
    ranges = scratch / "ranges" / capture(original, "float32", calibration, cpu, scratch / "ranges", _silent).file
    subject = Subject(Original(original), ranges, conversion)
    plan = subject.expansions().ladder()[0]

    def seconds_on(address: str, folder: Path) -> float:
        execution = Execution(runner="dask", address=address)
        start = time.monotonic()
        convert(subject, plan, folder, _silent, None, carried_by(execution))
        return time.monotonic() - start

    @flow(name="benchmark of workers")
    def measure(addresses: dict[int, str]) -> tuple[dict[int, list[float]], dict[str, str], int]:
        seconds: dict[int, list[float]] = {workers: [] for workers in addresses}
        sums = []
        for number in range(rounds + 1):
            for workers, address in addresses.items():
                folder = scratch / f"on-{workers}"
                shutil.rmtree(folder, ignore_errors=True)
                taken = seconds_on(address, folder)
                if number:
                    seconds[workers].append(taken)
                else:
                    sums.append(sha256_of_tree(folder))
        written = sum(path.stat().st_size for path in (scratch / f"on-{WORKERS[0]}").iterdir())
        if any(other != sums[0] for other in sums):
            raise AssertionError("the bytes depend on the number of workers")
        return seconds, sums[0], written

    with ExitStack() as stack:
        addresses = {}
        for workers in WORKERS:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address="127.0.0.1:0"
            )
            addresses[workers] = stack.enter_context(cluster).scheduler_address
        seconds, sums, written = measure(addresses)
    one, two = (seconds[workers] for workers in WORKERS)
    return {
        "command": typed("distributed"),
        "device": device_description(cpu),
        "model": {"layers": layers, "hidden_size": HIDDEN, "neurons": NEURONS, "columns": plan.columns},
        "bytes_written": written,
        "parts": sum(name.endswith(".safetensors") for name in sums),
        "seconds": {str(workers): taken for workers, taken in seconds.items()},
        "time_of_two_over_one": statistics.median(b / a for a, b in zip(one, two, strict=True)),
    }


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


def _show(result: dict[str, Any]) -> None:
    table = Table("workers", "seconds, median", "fastest", "slowest", "MB a second")
    for workers, taken in result["seconds"].items():
        middle = statistics.median(taken)
        table.add_row(
            workers,
            f"{middle:.1f}",
            f"{min(taken):.1f}",
            f"{max(taken):.1f}",
            f"{result['bytes_written'] / middle / 1e6:.0f}",
        )
    Console().print(table)
    Console().print(f"two workers need {result['time_of_two_over_one']:.2f} of the time of one (goal: at most 0.60)")


if __name__ == "__main__":
    main()
