"""Measure the slowdown of a bundle in fresh processes, which load original and bundle from the disk.

    python -m benchmarks.loadings ORIGINAL BUNDLE TARGET

A process knows nothing of the calibration. It prints its slowdown as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.rounding import CPU
from flows.commands.options import quiet_tools
from taylor_ops.config.latency import Latency
from taylor_ops.errors import WorkFailed
from taylor_ops.latency.judging import slowdown_of, timed_pairs
from taylor_ops.latency.timing import pairs_of
from taylor_ops.model.loading import load_in_memory
from taylor_ops.storage.files import leave_page_cache

PAIRS = 40


def main() -> None:
    """Measure one bundle in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("target", type=float)
    given = parser.parse_args()
    quiet_tools()
    print(json.dumps(_measured(given.original, given.bundle, given.target)))


def loadings(original: Path, bundle: Path, target: float, number: int) -> list[dict[str, Any]]:
    """What so many fresh processes measure, one after the other.

    Raises `WorkFailed` with the last line that a process says when it fails.
    """
    command = [sys.executable, "-m", "benchmarks.loadings", str(original), str(bundle), str(target)]
    found = []
    for _ in range(number):
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        if process.returncode != 0:
            raise WorkFailed(f"not confirmed: {process.stderr.strip().splitlines()[-1]}", "run it on its own")
        found.append(json.loads(process.stdout))
    return found


def within(interval: tuple[float, float], found: list[dict[str, Any]]) -> int:
    """How many of the slowdowns that were found lie in an interval."""
    return sum(interval[0] <= one["slowdown"] <= interval[1] for one in found)


def _measured(original: Path, bundle: Path, target: float) -> dict[str, Any]:
    # As after a restart: files that were just written may lie in larger pages, which are read faster.
    for file in (*original.glob("*.safetensors"), *bundle.glob("*.safetensors")):
        leave_page_cache(file)
    models = load_in_memory(original, bundle, "float32", CPU)
    if models is None:
        sys.exit("memory does not hold original and bundle")
    settings = Latency(target_slowdown=target, also=(), max_pairs=PAIRS)
    original_seconds, bundle_seconds, _ = timed_pairs(pairs_of(*models, settings, seed=1), settings)
    slowdown, ci95 = slowdown_of(original_seconds, bundle_seconds, seed=1)
    return {"slowdown": slowdown, "ci95": ci95, "seconds_original": original_seconds, "seconds_bundle": bundle_seconds}


if __name__ == "__main__":
    main()
