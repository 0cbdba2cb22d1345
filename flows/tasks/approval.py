"""The approval of a release: the run is suspended, nothing of it stays in memory, until a person has decided."""

from __future__ import annotations

from typing import Literal

from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field

from flows.run.release_run import ReleaseRun
from flows.server.waiting import forget_ended, this_server
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import stated
from taylor_ops.bundle.record import Approval
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.releases.gates import gates_before_publication, gates_in_markdown
from taylor_ops.releases.waiting import note_that_it_goes_on, note_that_it_waits, waiting
from taylor_ops.stages import APPROVE, inputs_of_approve

_LETTERS = 2000


class Decision(RunInput):
    """The form that a person fills in."""

    decision: Literal["approve", "reject"] = Field(description="Whether this release may be published.")
    by: str = Field(min_length=1, max_length=_LETTERS, description="Who decides; stands in the manifest.")
    comment: str = Field(min_length=1, max_length=_LETTERS, description="Why; stands in the manifest.")


def require_suspendable(run: ReleaseRun) -> None:
    """Raise `BadInput`, before any work, where approval is asked of a run that cannot be suspended."""
    if run.config.publish.approval and deployment.id is None:
        raise BadInput(
            "`publish.approval` needs a run of a deployment: one in this process cannot be suspended and go on later",
            "taylor-release submit CONFIG, or publish without approval by --set publish.approval=false, which the "
            "manifest states",
        )


def approve(run: ReleaseRun, findings: Findings) -> Approval | None:
    """Ask a person, where the config says so; None where it does not.

    The first call ends this run, which the server starts again when there is an answer; the call then gives it back.
    What was approved once is not asked about again while everything that the bundle states stays the same; but a run
    that has asked goes on with the answer to itself, whatever was said to another meanwhile. Raises `GateRejected` with
    who rejected it and why.
    """
    if not run.config.publish.approval:
        return None
    signer = None if run.signer is None else str(run.signer)
    decides = inputs_of_approve(run.config, findings, stated(run.loaded.document), signer)
    known = gates_before_publication(findings.latency, findings.exactness, findings.audit, run.config.audit)
    shown = f"## {run.label}\n\n" + gates_in_markdown(known)

    def ask() -> Approval:
        forget_ended(run.place)
        note_that_it_waits(run.place, str(flow_run.id), this_server())
        create_markdown_artifact(shown, run.key("approval"), f"what is to be approved of {run.label}")
        # The pause is named after what is shown: an answer holds for that, and for nothing that is made later. A retry
        # asks anew: the server has no answer to what was cancelled, and keeps a rejection.
        form = Decision.with_initial_data(description=shown)
        key = f"{APPROVE.key(decides)[:16]}-{flow_run.run_count}"
        given = suspend_flow_run(form, key=key)
        note_that_it_goes_on(run.place, str(flow_run.id))
        if given.decision == "reject":
            raise GateRejected(
                f"{run.label} was rejected by {given.by}: {given.comment}",
                "nothing was published; change what was objected to and release again",
            )
        return Approval(by=given.by, comment=given.comment)

    if str(flow_run.id) in waiting(run.place):
        run.forget(APPROVE)
    return run.perform(APPROVE, decides, lambda _folder, _progress: ask())
