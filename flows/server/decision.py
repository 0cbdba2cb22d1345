"""A person's answer to a run that waits for approval. It loads nothing that a release computes with."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound

from flows.server.connection import server_asked
from taylor_ops.errors import BadInput

_WHICH_WAIT = "`prefect flow-run ls --state Suspended` lists those that wait"


def decide(run: UUID, decision: Literal["approve", "reject"], by: str, comment: str) -> None:
    """Answer a suspended run, which then goes on; raises `BadInput` where no run waits under this id, or no server
    answers."""
    answer = {"decision": decision, "by": by, "comment": comment}
    with server_asked(), get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(run).state
            said = client.resume_flow_run(run, run_input=answer) if state and state.is_paused() else None
        except ObjectNotFound as error:
            raise BadInput(f"the server has no run {run}", _WHICH_WAIT) from error
    # Between the question and the answer somebody else may have given one, or the run was cancelled: an abort.
    if said is None or said.status == SetStateStatus.ABORT:
        raise BadInput(f"run {run} waits for no answer", _WHICH_WAIT)
    if said.status != SetStateStatus.ACCEPT:
        # The server has judged the answer by the form.
        reason = " ".join(str(getattr(said.details, "reason", "")).split())
        raise BadInput(f"the answer is refused: {reason}", "give a name and a comment")
