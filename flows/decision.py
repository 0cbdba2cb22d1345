"""A person's answer to a run that waits for approval. It loads nothing that a release computes with."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from prefect.exceptions import NotPausedError, ObjectNotFound
from prefect.flow_runs import resume_flow_run

from flows.server import server_asked
from taylor_ops.errors import BadInput

_WHICH_WAIT = "`prefect flow-run ls --state Suspended` lists those that wait"


def decide(run: UUID, decision: Literal["approve", "reject"], by: str, comment: str) -> None:
    """Answer a suspended run, which then goes on; raises `BadInput` where no run waits under this id, or no server
    answers."""
    with server_asked():
        try:
            resume_flow_run(run, run_input={"decision": decision, "by": by, "comment": comment})
        except ObjectNotFound as error:
            raise BadInput(f"the server has no run {run}", _WHICH_WAIT) from error
        except NotPausedError as error:
            raise BadInput(f"run {run} waits for no answer", _WHICH_WAIT) from error
        except RuntimeError as error:
            # The server has judged the answer by the form.
            reason = " ".join(str(error).split())
            raise BadInput(f"the answer is refused: {reason}", "give a name and a comment") from error
