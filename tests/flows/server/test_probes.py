"""What `doctor` finds on a Prefect server: none, one that does not answer, one without pool, and one without worker."""

from __future__ import annotations

import socket
from uuid import uuid4

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import probes


def closed_address() -> str:
    """The address of an API at a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/api"


def test_without_a_server_nothing_is_lacking_because_a_run_starts_its_own() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        found = [probe() for probe in (probes.server, probes.pool, probes.worker)]
    assert [one.state for one in found] == ["fine"] * 3
    assert "PREFECT_API_URL is not set" in found[0].found


def test_a_server_that_does_not_answer_is_lacking() -> None:
    url = closed_address()
    with temporary_settings({PREFECT_API_URL: url}):
        found = probes.server()
    assert (found.state, found.found) == ("lacking", f"{url} does not answer: ConnectError")
    assert "PREFECT_API_URL" in str(found.remedy)


@pytest.mark.usefixtures("prefect_server")
def test_an_address_that_is_no_api_is_lacking() -> None:
    with temporary_settings({PREFECT_API_URL: str(PREFECT_API_URL.value()).removesuffix("/api") + "/no-api"}):
        found = probes.server()
    assert found.state == "lacking"
    assert "/api" in str(found.remedy)


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_answers_is_named_with_its_pools() -> None:
    name = f"pool-{uuid4()}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        try:
            assert probes.server().state == "fine"
            assert (probes.pool().state, name in probes.pool().found) == ("fine", True)
        finally:
            client.delete_work_pool(name)


@pytest.mark.usefixtures("prefect_server")
def test_pools_without_a_worker_and_a_worker_that_is_online_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_workers_by_pool", lambda: {})
    assert (probes.pool().state, probes.worker().state) == ("warning", "warning")
    assert "taylor-release deploy" in str(probes.pool().remedy)
    monkeypatch.setattr(probes, "_workers_by_pool", lambda: {"gpu": 0, "local": 0})
    assert probes.pool().found == "gpu, local"
    assert "prefect worker start --pool gpu" in str(probes.worker().remedy)
    monkeypatch.setattr(probes, "_workers_by_pool", lambda: {"gpu": 2, "local": 0})
    assert (probes.worker().state, probes.worker().found) == ("fine", "2 online in gpu")


@pytest.mark.usefixtures("prefect_server")
def test_a_worker_that_sends_heartbeats_is_counted_as_online() -> None:
    name = f"pool-{uuid4()}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        try:
            assert probes._workers_by_pool()[name] == 0
            client.send_worker_heartbeat(name, "a-worker", heartbeat_interval_seconds=30)
            assert probes._workers_by_pool()[name] == 1
        finally:
            client.delete_work_pool(name)
