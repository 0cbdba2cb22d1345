"""Kills a run of `halted_release` in a stage of its choice, in three ways, and has a retry finish it."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import dead_runs, deploy
from taylor_ops.errors import WorkFailed
from taylor_ops.files import read_json
from tests.integration.documented import documented
from tests.integration.operated import Prefect

STAGES = (
    "resolve",
    "capture",
    "calibrate",
    "convert",
    "validate",
    "audit",
    "assemble",
    "leaks",
    "publish",
    "verify",
    "report",
)
DIED = ("process", "worker", "server")
"""What is killed: the process of the run, the worker with it as when a machine dies, or the server."""

_PATIENCE = 300
_AN_ID = "3f0c2f6e-2c7f-4c53-9d0b-1f3f6c1a2b4d"
"""Of the run in the documents."""


def told(beginning: str, run: str) -> str:
    """A command of the documents about this run."""
    return documented(beginning).replace(_AN_ID, run)


def deploy_halted(prefect: Prefect, config: Path) -> str:
    """Deploy the halted flow for a config, as `taylor-release deploy` does; gives the id of the deployment."""
    usual, deploy.ENTRYPOINT = deploy.ENTRYPOINT, "tests/integration/halted_release.py:release"
    try:
        with temporary_settings({PREFECT_API_URL: prefect.environment["PREFECT_API_URL"]}):
            deploy.deploy([config], "local", 1, str(prefect.checkout))
    finally:
        deploy.ENTRYPOINT = usual
    wanted = {"deployments": {"name": {"any_": [config.stem]}}}
    return str(prefect.asked("deployments/filter", wanted)[0]["id"])


class Halted:
    """One run of the halted flow, in an artifacts folder of its own."""

    def __init__(self, prefect: Prefect, deployment: str, artifacts: Path, *, gpu: bool = False) -> None:
        self.prefect, self.artifacts = prefect, artifacts
        artifacts.mkdir()
        for pipe in ("halted", "go"):
            os.mkfifo(artifacts / pipe)
        if gpu:
            (artifacts / "gpu").touch()
        self._deployment = deployment
        self.run = ""

    def start(self, stage: str | None = None) -> None:
        """Have the run started by the worker, to stop in a stage."""
        self._halt_in(stage)
        asked = {"parameters": {"artifacts": str(self.artifacts)}}
        self.run = self.prefect.asked(f"deployments/{self._deployment}/create_flow_run", asked)["id"]

    def retry(self, stage: str | None = None) -> None:
        """Have it started again, as the documents say."""
        self._halt_in(stage)
        self.prefect.typed(told("prefect flow-run retry", self.run))

    def _halt_in(self, stage: str | None) -> None:
        if stage is not None:
            (self.artifacts / "halt").write_text(stage)

    def halted(self) -> int:
        """The process of the run, when it has stopped where it was told to."""
        descriptor = os.open(self.artifacts / "halted", os.O_RDONLY | os.O_NONBLOCK)
        try:
            ready, _, _ = select.select([descriptor], [], [], _PATIENCE)
            if not ready:
                raise WorkFailed(f"run {self.run} did not come to its stage: {self.state()}", "see worker.log")
            return int(os.read(descriptor, 32))
        finally:
            os.close(descriptor)

    def go(self) -> None:
        """Let it go on from where it has stopped."""
        (self.artifacts / "go").write_text("go")

    def kill(self, what: str, pid: int) -> None:
        """Kill -9 it, and start again what a person would; of a run that died with it the server then knows."""
        if what == "server":
            # The run goes on without it: it has to get over that.
            self.prefect.kill("server")
            self.go()
            self.prefect.start(documented("prefect server start --host"))
            return
        if what == "worker":
            self.prefect.kill("worker")
        with suppress(ProcessLookupError):  # it may have been one of the worker's group
            os.kill(pid, signal.SIGKILL)
        if what == "worker":
            self.prefect.start(documented("prefect worker start --pool local"))
        self.until("CRASHED")

    def state(self) -> str:
        """The type of the run's state."""
        return self.prefect.state(self.run)

    def until(self, *states: str) -> str:
        """Wait for one of these states, and give it."""
        end = time.monotonic() + _PATIENCE
        while (state := self.state()) not in states:
            if time.monotonic() > end:
                raise WorkFailed(f"run {self.run} is {state}, not {' or '.join(states)}", "see the log of the worker")
            time.sleep(0.2)
        return state

    def finished(self) -> list[str]:
        """The stages whose work came to its end, in order, again where it was done again."""
        return (self.artifacts / "finished").read_text().split()

    def held(self) -> list[tuple[float, float]]:
        """When each slot of the GPU was taken and given back."""
        lines = (self.artifacts / "held").read_text().splitlines()
        return [(float(one), float(two)) for one, two in (line.split() for line in lines)]


def silence_of(prefect: Prefect, seconds: float) -> None:
    """Set how long the automation for dead runs listens before it calls a silent run dead."""
    with (
        temporary_settings({PREFECT_API_URL: prefect.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        (found,) = client.read_automations_by_name(dead_runs.NAME)
        client.update_automation(found.id, dead_runs.automation(timedelta(seconds=seconds)))


def record_of(artifacts: Path) -> dict[str, Any]:
    """The release.json of a finished run."""
    (record,) = artifacts.glob("*/*/release.json")
    return read_json(record)
