"""Kills a run of `halted_release` in a stage of its choice, in three ways, and has a retry finish it."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.states import Running, Scheduled

from flows.server import dead_runs, deploy
from taylor_ops.errors import WorkFailed
from tests.support.documented import documented
from tests.support.operated import PATIENCE, Prefect

STAGES = (
    "resolve",
    "capture",
    "calibrate",
    "transfer",
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


def deploy_halted(prefect: Prefect, config: Path) -> str:
    """Deploy the halted flow for a config, as `taylor-release deploy` does; gives the id of the deployment."""
    usual, deploy.ENTRYPOINT = deploy.ENTRYPOINT, "tests/support/halted_release.py:release"
    try:
        with prefect.settings():
            deploy.deploy([config], "local", 1, str(prefect.checkout))
    finally:
        deploy.ENTRYPOINT = usual
    wanted = {"deployments": {"name": {"any_": [config.stem]}}}
    return str(prefect.asked("deployments/filter", wanted)[0]["id"])


class Halted:
    """Runs of the halted flow in one artifacts folder, one after the other."""

    def __init__(self, prefect: Prefect, deployment: str, artifacts: Path, *, gpu: bool = False) -> None:
        self.prefect, self.artifacts = prefect, artifacts
        artifacts.mkdir()
        for pipe in ("halted", "go"):
            os.mkfifo(artifacts / pipe)
        if gpu:
            (artifacts / "gpu").touch()
        self._deployment = deployment

    def start(self, place: str | None = None, **overrides: dict[str, Any]) -> str:
        """Have a run started by the worker, to stop at a place; gives its id."""
        self.halt_at(place)
        asked = {"parameters": {"artifacts": str(self.artifacts), "more": json.dumps(overrides)}}
        return str(self.prefect.asked(f"deployments/{self._deployment}/create_flow_run", asked)["id"])

    def retry(self, run: str, place: str | None = None) -> None:
        """Have it started again, as `prefect flow-run retry` does."""
        self.halt_at(place)
        with self.prefect.settings(), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run), Scheduled(message="Retried by a test"), force=True)

    def halt_at(self, place: str | None) -> None:
        """Have the next run stop at a place."""
        if place is not None:
            (self.artifacts / "halt").write_text(place)

    def halted(self, run: str) -> int:
        """The process of the run, when it has stopped where it was told to.

        A worker reports a death twice, the second time seconds later, and undoes a retry in between: as a person would,
        have it started once more then.
        """
        descriptor, end = os.open(self.artifacts / "halted", os.O_RDONLY | os.O_NONBLOCK), time.monotonic() + PATIENCE
        try:
            while time.monotonic() < end:
                ready, _, _ = select.select([descriptor], [], [], 1)
                if ready:
                    return int(os.read(descriptor, 32))
                if self.prefect.state(run) == "CRASHED":
                    self.retry(run)
            raise WorkFailed("the run did not come to its place", f"see {self.prefect.place / 'worker.log'}")
        finally:
            os.close(descriptor)

    def go_on(self) -> None:
        """Let a run go on that has halted."""
        (self.artifacts / "go").write_text("go")

    def kill(self, run: str, what: str) -> None:
        """Kill -9 it where the run has halted, and start again what a person would.

        Of a run that died with it the server then knows. Without the server the run goes on, and has to get over that.
        """
        pid = self.halted(run)
        if what == "server":
            self.prefect.kill("server")
            self.go_on()
            self.prefect.start(documented("prefect server start --host"))
            return
        if what == "worker":
            self.prefect.kill("worker")
        with suppress(ProcessLookupError):  # it may have been one of the worker's group
            os.kill(pid, signal.SIGKILL)
        if what == "worker":
            self.prefect.start(documented("prefect worker start --pool local"))
        self.until(run, "CRASHED")

    def until(self, run: str, *states: str) -> str:
        """Wait for one of these states of a run, and give it."""
        return self.prefect.until(run, *states)

    def finished(self) -> list[str]:
        """The stages whose work came to its end, in order, again where it was done again."""
        return (self.artifacts / "finished").read_text().split()

    def held(self) -> list[tuple[float, float]]:
        """When each slot of the GPU was taken and given back."""
        lines = (self.artifacts / "held").read_text().splitlines()
        return [(float(one), float(two)) for one, two in (line.split() for line in lines)]


def silence_of(prefect: Prefect, seconds: float) -> None:
    """Set how long the automation for dead runs listens before it calls a silent run dead."""
    with prefect.settings(), get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(dead_runs.NAME)
        client.update_automation(found.id, dead_runs.automation(timedelta(seconds=seconds)))


def silent_run(prefect: Prefect, deployment: str) -> str:
    """A run that is said to be at work and of which nothing more is heard; gives its id.

    Once the automation has found it, it has judged every run that fell silent before.
    """
    with prefect.settings(), get_client(sync_client=True) as client:
        return str(client.create_flow_run_from_deployment(UUID(deployment), state=Running()).id)
