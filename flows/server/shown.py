"""What a run shows to those who wait for it: what is to be approved, and what came out."""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.utilities.urls import url_for

QUESTION, OUTCOME, REPORT = "approval", "outcome", "report"
"""With what the keys of the Markdown artifacts end."""


def how_to_answer(label: str, run: str) -> str:
    """What to do about a run that waits for approval: its page, if the server has pages, and the two commands."""
    page = url_for("flow-run", obj_id=run)
    options = f'{run} --by "YOUR NAME" --comment "WHY"'
    lines = [f"{label} waits for approval" + (f": {page}" if page else "")]
    return "\n".join([*lines, f"taylor-release approve {options}", f"taylor-release reject {options}"])


def shown(client: SyncPrefectClient, run: FlowRun, what: str) -> str:
    """The Markdown that a run shows last under keys with this end, without a final newline, or nothing."""
    for found in artifacts_of(client, run):
        if found.type == "markdown" and str(found.key).endswith(f"-{what}"):
            return str(found.data).rstrip()
    return ""


def artifacts_of(client: SyncPrefectClient, run: FlowRun) -> list[Artifact]:
    """All artifacts of a run, the newest first."""
    of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    return client.read_artifacts(artifact_filter=of_this_run, sort=ArtifactSort.CREATED_DESC)
