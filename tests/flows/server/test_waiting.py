"""The notes of runs that wait for approval: one a run, gone when its run has ended, whoever ended it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.states import Cancelled, Suspended

from flows.server.waiting import forget_ended, this_server
from taylor_ops.releases.waiting import note_that_it_waits, waiting
from taylor_ops.storage.artifacts import ReleaseFolder


@flow
def asks() -> None:
    """Stands for a release that waits."""


def suspended_run() -> str:
    with get_client(sync_client=True) as client:
        return str(client.create_flow_run(asks, state=Suspended()).id)


@pytest.mark.usefixtures("prefect_server")
def test_what_a_run_left_that_was_cancelled_or_deleted_goes_and_what_another_waits_with_stays(tmp_path: Path) -> None:
    stays, cancelled, deleted, elsewhere = suspended_run(), suspended_run(), str(uuid4()), str(uuid4())
    for run in (stays, cancelled, deleted):
        note_that_it_waits(ReleaseFolder(tmp_path), run, this_server())
    note_that_it_waits(ReleaseFolder(tmp_path), elsewhere, "another server")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(cancelled, Cancelled(), force=True)
    forget_ended(ReleaseFolder(tmp_path))
    assert set(waiting(ReleaseFolder(tmp_path))) == {stays, elsewhere}


def test_without_a_server_all_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_that_it_waits(ReleaseFolder(tmp_path), str(uuid4()), this_server())
    monkeypatch.setattr("flows.server.waiting.PREFECT_API_URL", Unset())
    forget_ended(ReleaseFolder(tmp_path))
    assert len(waiting(ReleaseFolder(tmp_path))) == 1


class Unset:
    """The setting of a person who has set no server."""

    def value(self) -> None:
        """None."""
