"""Remove the notes of runs that were cancelled or deleted while they waited for an approval."""

from __future__ import annotations

import hashlib
from uuid import UUID

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.server.connection import server_asked
from taylor_ops.releases.waiting import note_that_it_goes_on, waiting, waits_on
from taylor_ops.storage.artifacts import ReleaseFolder


def this_server() -> str:
    """A hash that identifies the server in use. Its address itself may contain a password."""
    return hashlib.sha256(str(PREFECT_API_URL.value()).encode()).hexdigest()


def forget_ended(place: ReleaseFolder) -> None:
    """Remove the notes of runs that have ended or were deleted.

    All notes stay if no server is set, because a temporary server knows no runs. The note of a run that this server
    does not know stays if it was written under another address, as the run may well wait there.

    Raises:
        BadInput: If the server does not answer.
    """
    if PREFECT_API_URL.value() is None:
        return
    with server_asked(), get_client(sync_client=True) as client:
        for run in waiting(place):
            try:
                state = client.read_flow_run(UUID(run)).state
                ended = state is None or state.is_final()
            except ObjectNotFound:
                ended = waits_on(place, run) == this_server()
            if ended:
                note_that_it_goes_on(place, run)
