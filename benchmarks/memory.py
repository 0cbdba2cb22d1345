"""Measure the peak memory of capture and conversion: at two depths, against a bound, and for one layer of 8B size.

    python -m benchmarks.memory --data FOLDER

Llamas with random weights in float32 of 8 and of 32 layers are captured and converted, and so is one layer of the
shapes of Llama-3-8B, on the ranges of its layer 31 (the widest) in FOLDER/llama3_8b_gate_ranges.safetensors. Each
capture and each conversion runs in a process of its own. Its peak is `VmHWM` of /proc, which includes pages of mapped
files. The bound is 1.5 times (largest layer in + out) + 600 MB, and 3 GB for the layer of 8B size.

It takes about ten minutes on two cores, and 8 GB of disk. With `--tokens` or without `--data` nothing is written.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from benchmarks.command import typed
from benchmarks.llama_ranges import RANGES, typical_layer
from benchmarks.measurement import write_result
from benchmarks.synthetic import Sizes, write_llama
from taylor_ops.capture.capture import capture
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.texts import Calibration
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.conversion.terms import Subject
from taylor_ops.machine.devices import device_description
from taylor_ops.model.original import Original
from taylor_ops.model.shards import save_tensors
from taylor_ops.series.bound import OutputWeights
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import size

RESULT = Path(__file__).parent / "results" / "memory.json"
CPU = torch.device("cpu")
CONVERSION = Conversion()
TOKENS = 4096
DEPTHS = (8, 32)
HIDDEN, NEURONS = 512, 2048
REAL = Sizes(hidden_size=4096, intermediate_size=14336, num_hidden_layers=1)
REAL_LAYER = 31
DEPTH_GOAL = 1.1
FIXED_BYTES = 600_000_000
REAL_BYTES = 3_000_000_000

T = TypeVar("T")


def main() -> None:
    """Measure, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"folder with {RANGES}")
    parser.add_argument("--tokens", type=int, help=f"of the calibration text, in place of {TOKENS}")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    calibration = Calibration(tokens=arguments.tokens or TOKENS)
    runs: dict[str, dict[str, Any]] = {}
    for depth in DEPTHS:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            runs[f"{depth} layers"] = _synthetic(Path(scratch), Sizes(HIDDEN, NEURONS, depth), calibration)
    if arguments.data:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            runs["one layer of Llama-3-8B"] = _real(Path(scratch), arguments.data / RANGES)
    few, many = (max(runs[f"{depth} layers"]["peak_bytes"].values()) for depth in DEPTHS)
    result = {
        "command": typed("memory"),
        "device": device_description(CPU),
        "conversion": CONVERSION.model_dump(mode="json"),
        "calibration": calibration.model_dump(mode="json"),
        "bytes_of_a_process_that_only_imports": _peak_of(_nothing)[0],
        "runs": runs,
        "depth": {"ratio": many / few, "goal": DEPTH_GOAL},
    }
    if arguments.data and not arguments.tokens:
        write_result(RESULT, "memory", result)
    _show(result)


def _synthetic(scratch: Path, sizes: Sizes, calibration: Calibration) -> dict[str, Any]:
    """Peaks of capture and conversion of one model."""
    source = write_llama(scratch / "original", sizes)
    capturing, captured = _peak_of(_capture, source, calibration, scratch / "ranges")
    ranges = scratch / "ranges" / captured.file
    converting, record = _peak_of(_convert, source, ranges, _plan(source, ranges), scratch / "converted")
    return _run(sizes, record, {"capture": capturing, "convert": converting})


def _real(scratch: Path, data: Path) -> dict[str, Any]:
    """The peak of converting one layer of real size, whose captured ranges come from a file."""
    source = write_llama(scratch / "original", REAL)
    published = load_file(data)
    original = Original(source)
    weight = original.weights(original.mlps[0]).down
    low, high = (published[key][REAL_LAYER].double() for key in ("min", "max"))
    layer = typical_layer(low, high, weight, torch.Generator().manual_seed(0))
    measures = OutputWeights.of(weight)
    kept = {
        "low": layer.low,
        "high": layer.high,
        "factor": layer.factor,
        "output_norm": torch.tensor([layer.norm]),
        "norms": measures.norms,
        "peaks": measures.peaks,
        "rows": torch.tensor([float(measures.rows)]),
        "alignment": torch.tensor([measures.alignment]),
    }
    ranges = scratch / "ranges.safetensors"
    save_tensors({f"{original.mlps[0].path}.{key}": value for key, value in kept.items()}, ranges)
    peak, record = _peak_of(_convert, source, ranges, _plan(source, ranges), scratch / "converted")
    return _run(REAL, record, {"convert": peak}) | {"goal_bytes": REAL_BYTES}


def _run(sizes: Sizes, record: ConvertedModel, peaks: dict[str, int]) -> dict[str, Any]:
    """The figures of one model. A layer out has columns in place of its output weights."""
    hidden, columns = sizes.hidden_size, max(layer.columns for layer in record.layers)
    width = torch.float32.itemsize
    taken = sizes.layer_values * width
    given = taken + (columns - sizes.intermediate_size) * hidden * width
    return {
        "model": asdict(sizes),
        "mean_order": record.plan.mean_order,
        "written_bytes": record.bytes,
        "largest_layer_bytes": {"in": taken, "out": given},
        "peak_bytes": peaks,
        "bound_bytes": round(1.5 * (taken + given)) + FIXED_BYTES,
    }


def _plan(source: Path, ranges: Path) -> Plan:
    return Subject(Original(source), ranges, CONVERSION).expansions().ladder()[0]


def _peak_of(work: Callable[..., T], *given: Any) -> tuple[int, T]:
    """Peak resident bytes of a new process in which `work` is done, and what it returns."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(partial(_and_peak, work), *given).result()


def _and_peak(work: Callable[..., T], *given: Any) -> tuple[int, T]:
    done = work(*given)
    # Not `ru_maxrss`: a process inherits that of the one which started it.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), done


def _capture(source: Path, calibration: Calibration, folder: Path) -> CapturedRanges:
    return capture(source, CONVERSION.dtype, calibration, CPU, folder, _silent)


def _convert(source: Path, ranges: Path, plan: Plan, folder: Path) -> ConvertedModel:
    return convert(Subject(Original(source), ranges, CONVERSION), plan, folder, _silent)


def _nothing() -> None:
    """What a process costs before it does anything."""


def _show(result: dict[str, Any]) -> None:
    table = Table("model", "layer in + out", "peak of capture", "peak of convert", "bound", "share of the bound")
    for name, run in result["runs"].items():
        peaks = run["peak_bytes"]
        bound = min(run["bound_bytes"], run.get("goal_bytes", run["bound_bytes"]))
        table.add_row(
            name,
            size(sum(run["largest_layer_bytes"].values())),
            size(peaks["capture"]) if "capture" in peaks else "",
            size(peaks["convert"]),
            size(bound),
            f"{max(peaks.values()) / bound:.2f}",
        )
    depth = result["depth"]
    Console().print(
        table,
        f"{DEPTHS[1]} layers over {DEPTHS[0]}: {depth['ratio']:.3f} (goal: at most {depth['goal']}); "
        f"a process that only imports: {size(result['bytes_of_a_process_that_only_imports'])}",
    )


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
