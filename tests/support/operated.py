"""A real Prefect server and worker on loopback, in a checkout of their own, and the commands that people type."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager, chdir, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import urllib3
from prefect.settings import PREFECT_API_URL, temporary_settings

from taylor_ops.errors import WorkFailed
from tests.support.commands import called_here
from tests.support.dependents import end, end_with_this_process
from tests.support.documented import ROOT

PROGRAMS = Path(sys.executable).parent
PATIENCE = 600


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def checkout(folder: Path) -> Path:
    """A folder in which commands run as in this repository, with configs and artifacts of its own."""
    folder.mkdir()
    for name in ("flows", "taylor_ops", "tests", "containers", "prefect.yaml", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "release_configs").mkdir()
    for config in (ROOT / "release_configs").iterdir():
        (folder / "release_configs" / config.name).write_bytes(config.read_bytes())
    return folder


class Prefect:
    """A Prefect home and a checkout of their own, and the programs that were started in them."""

    def __init__(self, place: Path, database: Path | None = None) -> None:
        """In a folder; the server begins with a copy of a database, or makes its own."""
        self.place = place
        self.checkout = checkout(place / "checkout")
        (place / "home").mkdir()
        if database is not None:
            shutil.copyfile(database, place / "home" / "prefect.db")
        port = free_port()
        self.environment = os.environ | {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "PREFECT_HOME": str(place / "home"),
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
            "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
            "DO_NOT_TRACK": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: list[subprocess.Popen[str]] = []

    def start(self, command: str) -> None:
        """Start `prefect server ...` or `prefect worker ...`, which stays; what it says goes into a file."""
        what = command.split()[1]
        with (self.place / f"{what}.log").open("a") as log:
            self.started[what] = subprocess.Popen(
                shlex.split(command),
                env=self.environment,
                cwd=self.checkout,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end_with_this_process(self.started[what])
        if what == "server":
            # It would say of every try that nobody answers yet.
            logging.getLogger("urllib3").setLevel(logging.ERROR)
            patient = urllib3.Retry(total=200, backoff_factor=0.1, backoff_max=0.5)
            health = f"{self.environment['PREFECT_API_URL']}/health"
            assert urllib3.PoolManager(retries=patient).request("GET", health).status == 200

    def kill(self, what: str) -> None:
        """`kill -9` of the server or the worker, with what it has started."""
        end(self.started.pop(what))

    def stop(self) -> None:
        """Kill all that was started and has not ended, commands that still wait for the server first."""
        for command in self._commands:
            end(command)
        for what in list(self.started):
            self.kill(what)

    def typed(self, command: str, status: int = 0, given: str = "", **environment: str) -> str:
        """Run a command in the shell to its end, which must be `status`, with `given` typed in; gives what it said."""
        done = subprocess.run(
            ["bash", "-c", command],
            env=self.environment | environment,
            cwd=self.checkout,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def settings(self) -> AbstractContextManager[Any]:
        """The settings of Prefect for this server, in this process."""
        return temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]})

    def called(self, command: str, status: int = 0) -> str:
        """Run `taylor-release ...` as `typed` does, but in this process, which has imported everything already."""
        program, *arguments = shlex.split(command)
        assert program == "taylor-release"
        url = {"PREFECT_API_URL": self.environment["PREFECT_API_URL"]}
        with patch.dict(os.environ, url), self.settings(), chdir(self.checkout):
            found = [sorted(map(str, Path().glob(one))) if "*" in one else [one] for one in arguments]
            done = called_here(*(one for ones in found for one in ones))
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def begun(self, command: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command whose output is read line by line."""
        begun = subprocess.Popen(
            ["bash", "-eo", "pipefail", "-c", command],
            env=self.environment | {"PYTHONUNBUFFERED": "1"} | environment,
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        end_with_this_process(begun)
        self._commands.append(begun)
        return begun

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs that the server knows."""
        found: list[dict[str, Any]] = self.asked("flow_runs/filter", {"limit": 200})
        return found

    def state(self, run: str) -> str:
        """The type of the state of a run."""
        (found,) = self.asked("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return str(found["state_type"])

    def until(self, run: str, *states: str) -> str:
        """Wait for one of these states of a run, and give it."""
        end = time.monotonic() + PATIENCE
        while (state := self.state(run)) not in states:
            if time.monotonic() > end:
                raise WorkFailed(f"run {run} is {state}, not {' or '.join(states)}", "see the log of the worker")
            time.sleep(0.2)
        return state

    def asked(self, what: str, question: dict[str, Any]) -> Any:
        """What the server answers to a question of its API."""
        # Where the disk is slow the server says that it is busy.
        patient = urllib3.Retry(
            total=20, backoff_factor=0.5, backoff_max=2, status_forcelist=[503], allowed_methods=None
        )
        place = f"{self.environment['PREFECT_API_URL']}/{what}"
        answer = urllib3.PoolManager(retries=patient).request("POST", place, json=question)
        assert answer.status in (200, 201), answer.data
        return answer.json()


def suspended(process: subprocess.Popen[str]) -> str:
    """The run of a `taylor-release submit ... --watch`, when it waits for approval."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if ": Suspended" in line:
            return line.split()[1].rstrip(":")
    raise AssertionError("".join(said))
