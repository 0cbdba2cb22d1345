"""Measure everything that is stale, one benchmark after the other: `make measure`.

    python -m benchmarks.measure --data FOLDER        # FOLDER holds the data sets, and the ranges of Llama-3-8B

What people look at first comes first, then what is timed, then what is not. A result that is fresh is not measured
again, so that after a kill the same command goes on. A benchmark that fails stops none of the others.

Before each benchmark that times something, the processor is watched: if other processes, or whoever shares this
machine, use more than a tenth of one core over five seconds, and still do so two minutes later, nothing is measured
any more, and those that use it are named. Benchmarks that write to the disk also need about 12 GB there.

A whole night is needed, about nine hours on two cores. `benchmarks.gpu` is not among them: it needs a GPU worker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measurement import ENTRY, RESULTS, age_of
from taylor_ops.storage.files import read_json


@dataclass(frozen=True)
class Run:
    """One benchmark as it is run for its committed result.

    Attributes:
        result: its file in benchmarks/results
        benchmark: its module in `benchmarks`
        minutes: about how long it takes on two cores
        arguments: what it is given
        data: whether it needs `--data`
        timed: whether a busy machine would spoil it
    """

    result: str
    benchmark: str
    minutes: int
    arguments: tuple[str, ...] = ()
    data: bool = False
    timed: bool = True


RUNS = (
    Run("release.json", "release", 30, data=True),
    Run("startup.json", "startup", 2),
    Run("operations.json", "operations", 20),
    Run("calibration.json", "calibration", 40, ("--keep",)),
    Run("forward.json", "forward", 10),
    Run("audit.json", "audit", 10),
    Run("convert.json", "convert", 5),
    Run("distributed.json", "distributed", 10, ("--folder", "/dev/shm")),
    Run("capture.json", "capture", 20),
    Run("publish.json", "publish", 5, ("--rounds", "3")),
    Run("evidence.json", "evidence", 20, data=True),
    Run("hardening.json", "hardening", 60, ("--threads", "1"), timed=False),
    Run("memory.json", "memory", 10, data=True, timed=False),
    Run("llama_ranges.json", "llama_ranges", 5, data=True, timed=False),
    Run("architectures.json", "architectures", 10, timed=False),
    Run("rounding.json", "rounding", 30, timed=False),
    Run("chaos.json", "chaos", 10, timed=False),
    Run("recovery.json", "recovery", 60, ("--keep",), timed=False),
    Run("exactness-float32.json", "exactness", 120, data=True, timed=False),
)

LIMIT = 0.1
"""Cores that others may use while something is timed."""
SECONDS, LOOKS = 5.0, 24


@dataclass(frozen=True)
class Load:
    """Cores that are used by other than this process, and the processes that use most: their names and cores."""

    cores: float
    users: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        seen = [f"{name} {cores:.2f}" for name, cores in self.users]
        hidden = self.cores - sum(cores for _, cores in self.users)
        if hidden > LIMIT / 2:
            seen.append(f"what no process here shows, as a neighbour of this machine, {hidden:.2f}")
        return f"others use {self.cores:.2f} cores: {', '.join(seen)}"


def load(seconds: float = SECONDS) -> Load:
    """Who else uses the processor, over some seconds. Time that the host gave to others counts too."""
    mine = {process.pid for process in (psutil.Process(), *psutil.Process().children(recursive=True))}
    whole, each = _busy(), _used()
    time.sleep(seconds)
    used = {pid: (name, now - each[pid][1]) for pid, (name, now) in _used().items() if pid in each}
    own = sum(spent for pid, (_, spent) in used.items() if pid in mine)
    others = sorted((one for pid, one in used.items() if pid not in mine), key=lambda one: -one[1])
    users = tuple((name, spent / seconds) for name, spent in others[:3] if spent / seconds >= 0.01)
    # The kernel counts in ticks: what is left of none may come out below it.
    return Load(max(0.0, (_busy() - whole - own) / seconds), users)


def _busy() -> float:
    """Seconds that all cores were not idle, since the start of the machine."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts the time of guests as that of users, too.
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def _used() -> dict[int, tuple[str, float]]:
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            found[process.pid] = (f"{process.info['name']} ({process.pid})", times.user + times.system)
    return found


def measured_by_process(run: Run, data: Path | None) -> int:
    """Run a benchmark in a process of its own. Returns its exit status."""
    command = [sys.executable, "-m", f"benchmarks.{run.benchmark}", *run.arguments]
    if run.data:
        command += ["--data", str(data)]
    return subprocess.run(command, check=False, env=os.environ | {"PYTHONUNBUFFERED": "1"}).returncode


def measure(
    runs: Sequence[Run],
    data: Path | None,
    results: Path = RESULTS,
    measured: Callable[[Run, Path | None], int] = measured_by_process,
    looked: Callable[[], Load] = load,
) -> list[str]:
    """Measure every stale result, and return what could not be measured, in words.

    Args:
        runs: What to measure, in this order.
        data: The folder of the data sets, or None.
        results: The folder of the results.
        measured: Runs a benchmark, which writes its result, and returns its exit status.
        looked: Says who else uses the processor.
    """
    missing = []
    for number, run in enumerate(runs, 1):
        name = f"{number} of {len(runs)}: {run.result}"
        if is_fresh(results / run.result):
            print(f"{name} is fresh", flush=True)
        elif run.data and data is None:
            print(f"{name} needs --data FOLDER", flush=True)
            missing.append(f"{run.result} needs --data FOLDER")
        elif run.timed and (noise := _noise(looked)):
            left = [one.result for one in runs[number - 1 :] if not is_fresh(results / one.result)]
            return [*missing, f"this machine is too noisy to time {', '.join(left)}: {noise}"]
        else:
            print(f"{name}, about {run.minutes} minutes", flush=True)
            status = measured(run, data)
            if status != 0:
                missing.append(f"{run.result}: benchmarks.{run.benchmark} ended with {status}")
            elif not is_fresh(results / run.result):
                missing.append(f"{run.result}: the code changed while it was measured")
    return missing


def is_fresh(path: Path) -> bool:
    """Whether a result is there, finished, and measured with the present code and config."""
    result = read_json(path) if path.is_file() else {}
    return ENTRY in result and age_of(result).stale is None


def _noise(looked: Callable[[], Load]) -> str:
    """Who kept the processor busy each time that it was looked at, or nothing once it was quiet."""
    said = ""
    for _look in range(LOOKS):
        found = looked()
        if found.cores <= LIMIT:
            return ""
        said = str(found)
    return said


def main() -> None:
    """Measure all that is stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the data sets")
    missing = measure(RUNS, parser.parse_args().data)
    if missing:
        sys.exit(
            "\n".join(["not measured:", *missing, "remedy: see to it, then run the same command again: it goes on"])
        )
    print("all results are fresh; python -m benchmarks.plots and python -m benchmarks.figures put them into documents")


if __name__ == "__main__":
    main()
