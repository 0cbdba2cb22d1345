"""Calibrate SmolLM2-135M-Instruct to five target slowdowns, and measure each bundle again in a fresh process.

    python -m benchmarks.calibration

Each target is calibrated as in a release, with unprotected neurons if the target is below the cost of protecting all of
them. The bundle is then written. A process that knows nothing of the calibration loads original and bundle from disk
and times pairs. For two targets, five such processes do, one after the other: each slowdown should lie in the interval
that the record states. One more target is calibrated while another process uses a third of a core. This must end in a
result that the fresh process confirms, or in the error of a noisy machine.

Except for that one target, the machine must do nothing else. `--keep` continues a result that was begun with the
present code.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import typed
from benchmarks.loadings import loadings, within
from benchmarks.measurement import fresh_part, write_result
from benchmarks.rounding import CPU, SOURCE
from flows.commands.options import quiet_tools
from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.latency import Latency
from taylor_ops.config.texts import Calibration
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import ReleaseError
from taylor_ops.latency.calibrate import calibrate
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.machine.devices import device_description
from taylor_ops.model.original import Original
from taylor_ops.source.resolve import resolve
from tests.support.dependents import end_with_this_process

RESULT = Path(__file__).parent / "results" / "calibration.json"
TARGETS = (1.5, 2.0, 3.0, 4.0, 6.0)
LOADINGS = {2.0: 5, 3.0: 5}
LOADED_TARGET = 2.0
LEAST_PROTECTED = 0.05
# A third of one core, in turns of half a second.
BUSY = """
import time
while True:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    time.sleep(1)
"""


def main() -> None:
    """Calibrate to every target and write the result, or measure one bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=float, nargs="*", default=TARGETS)
    parser.add_argument("--without-load", action="store_true")
    parser.add_argument("--keep", action="store_true", help="measure only what the result does not have yet")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    quiet_tools()
    with tempfile.TemporaryDirectory() as scratch:
        original, ranges = _captured(Path(scratch))
        result: dict[str, Any] = {
            "command": typed("calibration"),
            "device": device_description(CPU),
            "tolerance": _settings(LOADED_TARGET).tolerance,
            "min_protected": LEAST_PROTECTED,
            "targets": fresh_part(given.result).get("targets", []) if given.keep else [],
        }
        for target in sorted(set(given.targets) - {row["target"] for row in result["targets"]}):
            result["targets"].append(
                _one(original, ranges, target, Path(scratch) / f"bundle-{target:g}", nullcontext())
            )
            result["targets"].sort(key=lambda row: row["target"])
            # Half an hour of measuring is not to be lost to its last minute.
            write_result(given.result, "calibration", result, finished=False)
        if not given.without_load:
            bundle = Path(scratch) / "bundle-loaded"
            result["under_load"] = _one(original, ranges, LOADED_TARGET, bundle, _another_process_at_work())
        write_result(given.result, "calibration", result)
    _show(result)


def _captured(scratch: Path) -> tuple[Path, Path]:
    original = resolve(SOURCE, scratch / "source", _silent).folder
    folder = scratch / "ranges"
    return original, folder / capture(original, "float32", Calibration(), CPU, folder, _silent).file


def _settings(target: float) -> Latency:
    return Latency(target_slowdown=target, also=())


def _one(
    original: Path, ranges: Path, target: float, bundle: Path, beside: AbstractContextManager[None]
) -> dict[str, Any]:
    """Calibrate to one target inside the context `beside`, write the bundle, and let a fresh process measure it."""
    subject = Subject(Original(original), ranges, Conversion(min_protected=LEAST_PROTECTED))
    settings = _settings(target)
    start = time.monotonic()
    try:
        with beside:
            record = calibrate(subject, settings, CPU, 0, _silent)
    except ReleaseError as error:
        return {"target": target, "seconds": time.monotonic() - start, "refused": error.cause}
    seconds = time.monotonic() - start
    convert(subject, record.plan, bundle, _silent)
    row, (low, high) = _row(target, record, seconds), record.achieved.ci95
    try:
        found = loadings(original, bundle, target, LOADINGS.get(target, 1))
    except ReleaseError as error:
        return row | {"refused": error.cause}
    again = found[0]
    row |= {
        "again": again,
        "off": again["slowdown"] / target - 1,
        "loadings": found,
        "loadings_within_the_interval": within((low, high), found),
    }
    print(
        f"target {target:g}: {record.achieved.slowdown:.3f} ({low:.3f} to {high:.3f}) in {seconds:.0f} s, in fresh "
        f"processes {', '.join(format(loading['slowdown'], '.3f') for loading in found)}",
        flush=True,
    )
    return row


def _row(target: float, record: LatencyRecord, seconds: float) -> dict[str, Any]:
    achieved, plan = record.achieved, record.plan
    return {
        "target": target,
        "seconds": seconds,
        "protected": plan.protected,
        "mean_order": plan.mean_order,
        "columns": plan.columns,
        "slowdown": achieved.slowdown,
        "ci95": achieved.ci95,
        "ci98_of_mean": achieved.ci98_of_mean,
        "candidates": len(record.trials),
        "pairs": sum(len(trial.seconds_bundle) for trial in record.trials),
        "disturbed": record.disturbed,
        "trials": [trial.plain() for trial in record.trials],
    }


@contextmanager
def _another_process_at_work() -> Iterator[None]:
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    end_with_this_process(busy)
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


def _show(result: dict[str, Any]) -> None:
    names = (
        "target",
        "protected",
        "mean order",
        "candidates",
        "pairs",
        "achieved",
        "in a fresh process",
        "off",
        "seconds",
    )
    table = Table(*names)
    rows = [(f"{row['target']:g}", row) for row in result["targets"]]
    if "under_load" in result:
        rows.append((f"{result['under_load']['target']:g}, under load", result["under_load"]))
    for name, row in rows:
        if "refused" in row:
            table.add_row(name, "", "", "", "", row["refused"], "", "", f"{row['seconds']:.0f}")
            continue
        again = row["again"]
        table.add_row(
            name,
            f"{row['protected']:.1%}",
            f"{row['mean_order']:.2f}",
            str(row["candidates"]),
            str(row["pairs"]),
            _interval(row),
            _interval(again),
            f"{row['off']:+.1%}",
            f"{row['seconds']:.0f}",
        )
    Console(width=160).print(table)


def _interval(row: dict[str, Any]) -> str:
    return f"{row['slowdown']:.3f} ({row['ci95'][0]:.3f} to {row['ci95'][1]:.3f})"


if __name__ == "__main__":
    main()
