"""Submit a release to a Prefect server and wait for its end, so that workflows and scripts can start releases."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.parameters import as_more, expected_of
from flows.server.connection import reason, server_asked
from flows.server.shown import OUTCOME, QUESTION, REPORT, how_to_answer, shown
from taylor_ops.config_file.read import read
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.releases.markdown import without_pictures

# Not taken from the flow itself, which imports all code that computes a release.
_FLOW = "release"
_SECONDS_BETWEEN_LOOKS = 3.0


@dataclass(frozen=True)
class Submitted:
    """A run that was submitted.

    Attributes:
        run: Id of the run.
        state: Its state, in words.
        completed: Whether it ended with a release.
        text: Its state and, if it has one, its table of gates, in Markdown.
    """

    run: str
    state: str
    completed: bool
    text: str


def submit(
    config: Path, overrides: Mapping[str, str], artifacts: str | None, wait: bool, report: Callable[[str], None]
) -> Submitted:
    """Check the config with its overrides and run its deployment.

    The run gets the hash of the checked config and refuses to release any other.

    Args:
        config: Path of the config. Its file name names the deployment.
        overrides: Dotted keys of the config and their YAML values.
        artifacts: Artifacts folder on the worker, if not the default of the flow.
        wait: Wait for the end of the run, even while it is suspended for an approval.
        report: Called with the state of the run whenever it changes, with what is to be approved and how if the run
            waits for that, and with what came out.

    Raises:
        BadInput: Before a run is created, if the config or an override is wrong, the deployment does not exist, or the
            server refuses the parameters or does not answer.
        WorkFailed: If the server answers with an error, or the run is deleted or the watching stopped meanwhile.
    """
    name = f"{_FLOW}/{config.stem}"
    loaded = read(config, overrides)
    parameters = {"config": config.as_posix(), "more": as_more(overrides), "expected": expected_of(loaded)}
    if artifacts is not None:
        parameters["artifacts"] = artifacts
    label = f"{loaded.config.name} {loaded.config.version}"
    with server_asked():
        try:
            run = run_deployment(name, parameters=parameters, timeout=0, flow_run_name=label, as_subflow=False)
        except ObjectNotFound as error:
            raise BadInput(f"the server has no deployment {name}", "`taylor-release deploy` makes it") from error
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (409, 422):
                raise
            raise BadInput(f"the server refuses the run: {reason(error)}", "correct the parameters") from error
        assert isinstance(run, FlowRun)
        if wait:
            try:
                run = _end_of(run, report)
            except KeyboardInterrupt as stopped:
                raise WorkFailed(
                    f"no longer watched: run {run.id} goes on without this command",
                    f"prefect flow-run watch {run.id} shows what becomes of it, prefect flow-run cancel {run.id} ends "
                    "it",
                ) from stopped
            with get_client(sync_client=True) as client:
                came_out = shown(client, run, OUTCOME)
            if came_out:
                report(came_out)
        return Submitted(str(run.id), _state_of(run), bool(run.state and run.state.is_completed()), _text(run))


def _end_of(run: FlowRun, report: Callable[[str], None]) -> FlowRun:
    """Wait for the end of a run. If the server is away meanwhile, keep waiting, because the run may well go on."""
    last = ""
    with get_client(sync_client=True) as client:
        while True:
            question = ""
            try:
                run = client.read_flow_run(run.id)
                state = _state_of(run)
                if state != last and run.state is not None and run.state.is_paused():
                    question = f"{shown(client, run, QUESTION)}\n{how_to_answer(run.name, str(run.id))}"
            except ObjectNotFound as error:
                raise WorkFailed(
                    f"run {run.id} was deleted while it was watched", "submit it again, or look on the server"
                ) from error
            except httpx.TransportError as error:
                state = f"the server does not answer: {error}"
            except httpx.HTTPStatusError as error:
                if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                state = f"the server answers with status {error.response.status_code}"
            if state != last:
                report(f"run {run.id}: {state}\n{question}".rstrip())
                last = state
            if run.state is not None and run.state.is_final():
                return run
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _state_of(run: FlowRun) -> str:
    state = run.state
    return ": ".join(part for part in (state.name, state.message) if part) if state else "unknown"


def _text(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        report = without_pictures(shown(client, run, REPORT))
    head = f"## {run.name}\n\n{_state_of(run)}\n"
    _heading, _, body = report.partition("\n\n")
    return f"{head}\n{body}\n" if body else head
