"""Measure what a command costs that computes nothing: processor time, beside that of the libraries it draws with.

    python -m benchmarks.startup

`taylor-release list` over three releases, `taylor-release --help`, `python -c "import typer, rich"`, and the help of a
program of two commands that typer makes, in turn, each in a process of its own. The last is the least that `--help` can
cost with these libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.command import typed
from benchmarks.measurement import write_result
from tests.support.release_example import record

RESULT = Path(__file__).parent / "results" / "startup.json"
RELEASES = 3
GOALS = {"list_of_help": 1.5, "help_of_libraries": 3.0}
TWO_COMMANDS = """
import typer
app = typer.Typer(add_completion=False)
app.command("one")(lambda: None)
app.command("two")(lambda: None)
app()
"""


def main() -> None:
    """Time each command in turn and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="how often each command is run")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(RELEASES):
            folder = Path(scratch) / "tiny" / f"1.0.{number}"
            folder.mkdir(parents=True)
            record().model_copy(update={"version": f"1.0.{number}"}).write(folder / "release.json")
        commands = {
            "libraries": ["-c", "import typer, rich"],
            "two_commands": ["-c", TWO_COMMANDS, "--help"],
            "help": ["-m", "flows.commands", "--help"],
            "list": ["-m", "flows.commands", "list", "--artifacts", scratch],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _turn in range(given.turns):
            for name, arguments in commands.items():
                seconds[name].append(processor_seconds(arguments))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "list_of_help": middle["list"] / middle["help"],
        "help_of_libraries": middle["help"] / middle["libraries"],
        "two_commands_of_libraries": middle["two_commands"] / middle["libraries"],
    }
    result = {
        "command": typed("startup"),
        "releases": RELEASES,
        "goals": GOALS,
        "median_seconds": middle,
        "ratios": ratios,
        "seconds": seconds,
    }
    write_result(given.result, "startup", json.loads(json.dumps(result)))
    for name, ratio in ratios.items():
        goal = f" (goal: at most {GOALS[name]:g})" if name in GOALS else ""
        print(f"{name.replace('_', ' ')}: {ratio:.2f}{goal}")


def processor_seconds(arguments: list[str]) -> float:
    """Seconds of processor time of one Python process, user and system."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
