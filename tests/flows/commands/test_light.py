"""Commands that compute nothing load no library that computes: who asks for a table does not wait for torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from flows.commands.answers import ANSWERS
from flows.commands.main import COMMANDS
from tests.support import loaded_by as loaded_by_commands

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "matplotlib", "datasets")
RUN = "00000000-0000-0000-0000-000000000000"
DECISION = [RUN, "--by", "somebody", "--comment", "why"]
COMPUTE = {"doctor", "index", "init", "plan", "run", "verify", "yank", "audit", "calibrate", "submit", "mark", "trace"}
CONFIGS = [str(path) for path in sorted((ROOT / "release_configs").glob("*.yaml"))]
LIGHT = {
    "list": [[], ["--json"]],
    "show": [["tiny", "1.0.0"]],
    "diff": [["tiny", "1.0.0", "1.0.1"]],
    "clean": [["--dry-run"]],
    "check": [CONFIGS, [*CONFIGS, "--json"]],
    "schema": [[], ["--markdown"], *([name] for name in ANSWERS)],
    "changed": [["--since", "HEAD"]],
}
ON_A_SERVER = {"deploy": [[]], "approve": [DECISION], "reject": [DECISION]}
CALLS = [
    ["--help"],
    *([name, *more] for name, calls in LIGHT.items() for more in calls),
    *([name, "--help"] for name in COMMANDS),
]
HEAVY_CALL = ["plan", "no-such.yaml"]


def loaded_by(*commands: list[str], **environment: str) -> list[list[str]]:
    """The heavy libraries that each command has loaded when it ends, however it ends."""
    done = subprocess.run(
        [sys.executable, loaded_by_commands.__file__],
        input=json.dumps({"heavy": HEAVY, "commands": commands}),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert not [answer["told"] for answer in answers if "unexpected" in answer["told"] or "Traceback" in answer["told"]]
    return [answer["loaded"] for answer in answers]


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What every call loads, and one that computes; a process for each would import the command line anew."""
    calls = [*CALLS, HEAVY_CALL]
    return {" ".join(call): found for call, found in zip(calls, loaded_by(*calls), strict=True)}


def test_every_command_either_computes_or_is_light() -> None:
    assert COMMANDS.keys() == COMPUTE | LIGHT.keys() | ON_A_SERVER.keys()


@pytest.mark.parametrize("arguments", CALLS, ids=lambda arguments: " ".join(arguments)[:40])
def test_a_command_that_computes_nothing_loads_nothing_that_computes(
    loaded: dict[str, list[str]], arguments: list[str]
) -> None:
    assert loaded[" ".join(arguments)] == []


@pytest.mark.usefixtures("prefect_server")
def test_a_command_that_asks_a_server_loads_nothing_that_computes() -> None:
    calls = [[name, *more] for name, calls in ON_A_SERVER.items() for more in calls]
    assert loaded_by(*calls, PREFECT_API_URL=str(PREFECT_API_URL.value())) == [[]] * len(calls)


def test_a_library_that_is_loaded_is_seen(loaded: dict[str, list[str]]) -> None:
    assert loaded[" ".join(HEAVY_CALL)] != []
