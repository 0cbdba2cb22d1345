"""The approval of a release, during which the run is suspended and takes no memory until a person decides."""

from __future__ import annotations

from typing import Literal

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from pydantic import Field, ValidationError

from flows.run.release_run import ReleaseRun
from flows.server.shown import QUESTION, how_to_answer
from flows.server.waiting import forget_ended, this_server
from taylor_ops.bundle.assemble import stated_overrides
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import stated
from taylor_ops.bundle.record import Approval
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.presentation.overridden import overridden_in_markdown
from taylor_ops.presentation.wording import plain
from taylor_ops.releases.gates import gates_before_publication, gates_listed
from taylor_ops.releases.headlines import headline_before_publication
from taylor_ops.releases.waiting import note_that_it_goes_on, note_that_it_waits, waiting
from taylor_ops.stages import APPROVE, inputs_of_approve

_LETTERS = 2000


class Decision(RunInput):
    """The form that a person fills in."""

    decision: Literal["approve", "reject"] = Field(description="Whether this release may be published.")
    by: str = Field(min_length=1, max_length=_LETTERS, description="Who decides. The manifest says it.")
    comment: str = Field(min_length=1, max_length=_LETTERS, description="Why. The manifest says it.")


def require_suspendable(run: ReleaseRun) -> None:
    """Raise `BadInput`, before any work, if the config asks for an approval and the run cannot be suspended."""
    if run.config.publish.approval and deployment.id is None:
        raise BadInput(
            "`publish.approval` needs a run of a deployment, because a run in this process cannot be suspended and "
            "resumed",
            "taylor-release submit CONFIG; a run in this process needs a config that asks for no approval, or one that "
            "lists `publish.approval` under `overridable`, with --set publish.approval=false",
        )


def approve(run: ReleaseRun, findings: Findings, comment: str = "") -> Approval | None:
    """Ask a person for approval. Returns None if the config asks for none.

    The first call suspends this run. The server starts the run again when there is an answer, which the call then
    returns. A release that was approved once is not asked about again while everything that the bundle states stays
    the same. A run that has asked, however, uses its own answer, even if another run got one meanwhile.

    Raises:
        GateRejected: If the person rejects the release. Its cause says who rejected it and why.
    """
    if not run.config.publish.approval:
        return None
    signer = None if run.signer is None else str(run.signer)
    overridden = stated_overrides(run.loaded.overridden)
    decides = inputs_of_approve(run.config, findings, stated(run.loaded.document), signer, overridden)
    checked = gates_before_publication(
        findings.latency, findings.exactness, findings.audit, run.config.audit, findings.tasks
    )
    said, changed = plain(comment), overridden_in_markdown(run.loaded.overridden)
    top = f"## {run.label}\n\n**{headline_before_publication(findings)}**\n"
    parts = (top, f"{said}\n" if said else "", gates_listed(checked), changed)
    shown = "\n".join(part for part in parts if part)

    def ask() -> Approval:
        forget_ended(run.place)
        note_that_it_waits(run.place, str(flow_run.id), this_server())
        create_markdown_artifact(shown, run.key(QUESTION), f"what is to be approved of {run.label}")
        # The key of the question follows from what is shown, so that an answer holds for nothing that is made later.
        # The count makes a retry ask anew, because the server keeps a rejection.
        key = f"{APPROVE.key(decides)[:16]}-{flow_run.run_count}"
        # Nothing is heard of a suspended run, and the server is told so before it is suspended.
        with run.pulse.held():
            answer = _answered(run.label, shown, key)
        note_that_it_goes_on(run.place, str(flow_run.id))
        if answer.decision == "reject":
            raise GateRejected(
                f"{run.label} was rejected by {answer.by}: {answer.comment}",
                "nothing was published: resolve the objection and release again",
            )
        return Approval(by=answer.by, comment=answer.comment)

    if str(flow_run.id) in waiting(run.place):
        run.forget(APPROVE)
    return run.perform(APPROVE, decides, lambda _folder, _progress: ask())


def _answered(label: str, shown: str, key: str) -> Decision:
    """Suspend this run until there is an answer to the question under a key, or give the answer that there is."""
    form = Decision.with_initial_data(description=shown)
    asked = 0
    while True:
        try:
            answer: Decision = suspend_flow_run(form, key=f"{key}-{asked}")
            return answer
        except ValidationError:
            # The server takes no answer that is not valid, so there is none: the run was ended while it waited, and
            # then started again. The server does not count that as another run, nor suspend a run twice for one key.
            asked += 1
        except Pause:
            get_run_logger().info("%s\n%s", shown.rstrip(), how_to_answer(label, str(flow_run.id)))
            raise
