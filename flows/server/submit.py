"""Submit a release to a Prefect server and wait for its end: what a workflow or a script does in place of clicking."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.parameters import as_overrides, as_settings, expected_of
from flows.server.connection import reason, server_asked
from taylor_ops.config_file.read import LoadedConfig, read
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.presentation.wording import markdown_table

# Not taken from the flow itself: that imports all that a release computes with.
_FLOW = "release"
_SECONDS_BETWEEN_LOOKS = 3.0


@dataclass(frozen=True)
class Submitted:
    """A run that was submitted. state: in words; text: its table of gates, or why there is none, in Markdown."""

    run: str
    state: str
    completed: bool
    text: str


def submit(
    config: Path, overrides: Mapping[str, str], artifacts: str | None, wait: bool, told: Callable[[str], None]
) -> Submitted:
    """Check the config with its overrides, run its deployment, and wait for the end of the run where `wait` is set.

    The run is told what was checked here and refuses to release anything else. One that is suspended for an approval is
    waited for too. told: is called with the state of the run whenever that changes. Raises `BadInput` before a run is
    created: for a config or override that is wrong, for a deployment that is not there, for a server that refuses the
    parameters or does not answer.
    """
    name = f"{_FLOW}/{config.stem}"
    loaded = read(config, overrides)
    parameters = {
        "config": config.as_posix(),
        "overrides": _typed(loaded, overrides),
        "expected": expected_of(loaded),
    }
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
            run = _end_of(run, told)
        return Submitted(str(run.id), _said(run), bool(run.state and run.state.is_completed()), _text(run))


def _typed(loaded: LoadedConfig, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Overrides as the flow takes them, and as the server judges them."""
    typed = as_overrides(overrides, loaded.document)
    if read(loaded.path, as_settings(typed)).document != loaded.document:
        whole = ", ".join(key for key in overrides if "." not in key)
        raise BadInput(
            f"--set {whole}: a whole section cannot be replaced in a run on a server, only keys of it",
            "set these one by one, as in --set latency.target_slowdown=4",
        )
    return typed


def _end_of(run: FlowRun, told: Callable[[str], None]) -> FlowRun:
    """The run when it has ended. A server that is away meanwhile is waited for: the run itself may well go on."""
    last = ""
    with get_client(sync_client=True) as client:
        while True:
            try:
                run = client.read_flow_run(run.id)
                now = _said(run)
            except ObjectNotFound as error:
                raise WorkFailed(
                    f"run {run.id} was deleted while it was watched", "submit it again, or look on the server"
                ) from error
            except httpx.TransportError as error:
                now = f"the server does not answer: {error}"
            except httpx.HTTPStatusError as error:
                if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                now = f"the server answers with status {error.response.status_code}"
            if now != last:
                told(f"run {run.id}: {now}")
                last = now
            if run.state is not None and run.state.is_final():
                return run
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _said(run: FlowRun) -> str:
    state = run.state
    return ": ".join(part for part in (state.name, state.message) if part) if state else "unknown"


def _text(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        tables = [found for found in client.read_artifacts(artifact_filter=of_this_run) if found.type == "table"]
    head = f"## {run.name}\n\n{_said(run)}\n"
    if not tables:
        return head
    rows = tables[0].data
    table: list[dict[str, str]] = json.loads(rows) if isinstance(rows, str) else rows  # type: ignore[assignment]
    headings = list(table[0])
    return f"{head}\n{markdown_table(headings, [[row[heading] for heading in headings] for row in table])}"
