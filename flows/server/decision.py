"""Send a person's answer to a run that waits for approval, without loading the code that computes a release."""

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
    """Answer a suspended run, which then goes on.

    Raises:
        BadInput: If no run waits under this id, the server refuses the answer, or no server answers.
    """
    answer = {"decision": decision, "by": by, "comment": comment}
    with server_asked(), get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(run).state
            response = client.resume_flow_run(run, run_input=answer) if state and state.is_paused() else None
        except ObjectNotFound as error:
            raise BadInput(f"the server has no run {run}", _WHICH_WAIT) from error
    # Somebody else may have answered in the meantime, or cancelled the run. The server then aborts.
    if response is None or response.status == SetStateStatus.ABORT:
        raise BadInput(f"run {run} waits for no answer", _WHICH_WAIT)
    if response.status != SetStateStatus.ACCEPT:
        # The server has validated the answer against the form.
        reason = " ".join(str(getattr(response.details, "reason", "")).split())
        raise BadInput(f"the answer is refused: {reason}", "give a name and a comment")
