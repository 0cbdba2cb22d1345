"""Measure the time of a release with everything cached, and the share of the time that is not spent in stages.

    python -m benchmarks.operations

A Prefect server, a work pool and a worker run on loopback. `prefect deployment run release/smollm2 --watch` runs once
with nothing cached and then again, unchanged, and is timed from the command to `Completed`. The machinery is all the
time that no stage took: the command itself, the worker that looks for work, the process that it starts, the imports,
the requests to the server, and the report.

It takes half an hour. `--reduced` lets the stages do much less. Then the seconds of the machinery count, beside the
seconds of a whole release by `python -m benchmarks.release`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.command import typed
from benchmarks.measurement import write_result
from taylor_ops.storage.files import read_json
from tests.support.operated import Prefect

RESULT = Path(__file__).parent / "results" / "operations.json"
WHOLE = RESULT.with_name("release.json")
AGAIN = 2
GOALS = {"cached_seconds": 60.0, "machinery_share": 0.05}
REDUCED: dict[str, Any] = {
    "calibration": {"tokens": 2048},
    "exactness": {
        "prompts": [{"name": "project", "builtin": "held_out", "limit": 6}],
        "new_tokens": 12,
        "running_tokens": 128,
    },
    "latency": {"tolerance": 0.5, "min_seconds": 0, "also": []},
    "audit": {"attacks": ["rank_one"], "rebuild": []},
}


def main() -> None:
    """Release once and again, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduced", action="store_true", help="fewer prompts, no other shapes")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    overrides = REDUCED if given.reduced else {}
    with tempfile.TemporaryDirectory() as scratch:
        prefect = Prefect(Path(scratch))
        try:
            result = _measured(prefect, overrides)
        finally:
            prefect.stop()
    write_result(given.result, "operations", {"command": typed("operations"), **result})
    _show(result)


def _measured(prefect: Prefect, overrides: dict[str, Any]) -> dict[str, Any]:
    prefect.start("prefect server start")
    prefect.typed("taylor-release deploy")
    prefect.start("prefect worker start --pool local")
    if overrides:
        _let_loosen(prefect.checkout / "release_configs" / "smollm2.yaml")
    parameters = json.dumps({"more": json.dumps(overrides)})
    command = f"prefect deployment run release/smollm2 --watch --params '{parameters}'"
    first = _timed(prefect, command)
    record = _record(prefect)
    again = [_timed(prefect, command) for _ in range(AGAIN)]
    cached = _record(prefect)
    runs = sorted(prefect.runs(), key=lambda run: str(run["start_time"]))
    assert [run["state_type"] for run in runs] == ["COMPLETED"] * (1 + AGAIN)
    stages = sum(cost["seconds"] for cost in record["stages"].values())
    whole = sum(cost["seconds"] for cost in read_json(WHOLE)["release"]["stages"].values())
    return {
        "device": record["slowdown"]["device"],
        "overrides": overrides,
        "uncached": {
            "seconds": first,
            "seconds_in_the_run": runs[0]["total_run_time"],
            "seconds_in_stages": stages,
            "machinery_share": 1 - stages / first,
            "machinery_share_beside_a_whole_release": (first - stages) / (first - stages + whole),
            "machinery_share_in_the_run": 1 - stages / runs[0]["total_run_time"],
            "stages": record["stages"],
        },
        "cached": {
            "seconds": again,
            "seconds_in_the_run": [run["total_run_time"] for run in runs[1:]],
            "every_stage_reused": all(cost["cached"] for cost in cached["stages"].values()),
        },
        "goals": GOALS,
    }


def _let_loosen(config: Path) -> None:
    """Have a config let its runs loosen what is reduced."""
    with config.open("a", encoding="utf-8") as stream:
        stream.write("overridable: [latency.tolerance, audit.attacks]\n")


def _timed(prefect: Prefect, command: str) -> float:
    start = time.monotonic()
    prefect.typed(command)
    return time.monotonic() - start


def _record(prefect: Prefect) -> dict[str, Any]:
    (record,) = (prefect.checkout / "artifacts").glob("*/*/release.json")
    return read_json(record)


def _show(result: dict[str, Any]) -> None:
    uncached, cached = result["uncached"], result["cached"]
    goals = result["goals"]
    rows = {
        "device": result["device"],
        "settings": "reduced" if result["overrides"] else "as configured",
        "cached, seconds from command to Completed": f"{statistics.median(cached['seconds']):.0f}"
        f" (goal: {goals['cached_seconds']:.0f})",
        "every stage reused": cached["every_stage_reused"],
        "uncached, seconds, of which in stages": f"{uncached['seconds']:.0f}, {uncached['seconds_in_stages']:.0f}",
        "machinery, share of the command": f"{uncached['machinery_share']:.1%} (goal: {goals['machinery_share']:.0%})",
        "machinery, beside a whole release": f"{uncached['machinery_share_beside_a_whole_release']:.1%}",
        "machinery, share of the run alone": f"{uncached['machinery_share_in_the_run']:.1%}",
    }
    for label, value in rows.items():
        print(f"{label:45} {value}")


if __name__ == "__main__":
    main()
