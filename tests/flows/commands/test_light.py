"""Commands that compute nothing load no library that computes: who asks for a table does not wait for torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from flows.commands.main import COMMANDS

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "matplotlib", "datasets")
RUN = "00000000-0000-0000-0000-000000000000"
DECISION = [RUN, "--by", "somebody", "--comment", "why"]
COMPUTE = {"plan", "run", "verify", "yank", "audit", "calibrate", "submit", "mark", "trace"}
LIGHT = {
    "list": [[], ["--json"]],
    "show": [["tiny", "1.0.0"]],
    "diff": [["tiny", "1.0.0", "1.0.1"]],
    "clean": [["--dry-run"]],
    "check": [[str(path) for path in sorted((ROOT / "release_configs").glob("*.yaml"))]],
    "schema": [[], ["--markdown"]],
    "changed": [["--since", "HEAD"]],
}
ON_A_SERVER = {"deploy": [[]], "approve": [DECISION], "reject": [DECISION]}
PROGRAM = """
import atexit, sys
atexit.register(lambda: print("loaded:", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr))
from flows.commands.main import main
main()
"""


def loaded_by(*arguments: str, **environment: str) -> list[str]:
    """The heavy libraries that a command has loaded when it ends, however it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unexpected" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("loaded:")]
    return line.split()[1:]


def test_every_command_either_computes_or_is_light() -> None:
    assert COMMANDS.keys() == COMPUTE | LIGHT.keys() | ON_A_SERVER.keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([name, *more] for name, calls in LIGHT.items() for more in calls),
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_a_command_that_computes_nothing_loads_nothing_that_computes(arguments: list[str]) -> None:
    assert loaded_by(*arguments) == []


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("arguments", [[name, *more] for name, calls in ON_A_SERVER.items() for more in calls], ids=str)
def test_a_command_that_asks_a_server_loads_nothing_that_computes(arguments: list[str]) -> None:
    assert loaded_by(*arguments, PREFECT_API_URL=str(PREFECT_API_URL.value())) == []


def test_a_library_that_is_loaded_is_seen() -> None:
    assert loaded_by("plan", "no-such.yaml") != []
