"""Runs that waited for an approval and ended without one: cancelled, or deleted, they take no note away themselves."""

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
    """What tells the server that is set from others: a hash of its address, which may hold a password."""
    return hashlib.sha256(str(PREFECT_API_URL.value()).encode()).hexdigest()


def forget_ended(place: ReleaseFolder) -> None:
    """Take away the notes of runs that have ended, or that were deleted; those of others stay.

    All stay where no server is set: a temporary one knows nothing. Those stay that the server does not know and that
    were made under another address, where they may well wait. Raises `BadInput` where the one that is set does not
    answer.
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
