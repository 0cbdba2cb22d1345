"""What a run is told by who submits it, and what commands say without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Running

from flows.parameters import expected_of
from flows.release import release
from flows.server.submit import _end_of
from taylor_ops.config_file.read import read
from taylor_ops.errors import BadInput, WorkFailed
from tests.flows.commands.test_main import called, refused
from tests.support.released import released


@pytest.mark.usefixtures("prefect_server")
def test_a_worker_with_another_config_than_was_submitted_refuses_the_run_and_names_both(
    tiny_config: Path, tmp_path: Path
) -> None:
    submitted = expected_of(read(tiny_config, {"version": "1.0.1"}))
    tiny_config.write_text(tiny_config.read_text("utf-8").replace("license: mit", "license: apache-2.0"), "utf-8")
    there = expected_of(read(tiny_config, {"version": "1.0.1"}))
    assert submitted.split()[:2] == there.split()[:2] == ["tiny", "1.0.1"]
    with pytest.raises(BadInput) as caught:
        released(tiny_config, tmp_path / "a", {"version": "1.0.1"}, expected=submitted)
    for one in (submitted, there):
        assert f"tiny 1.0.1 with sha256 {one.split()[2][:12]}" in caught.value.cause
    assert "update the checkout" in caught.value.remedy
    assert not (tmp_path / "a").exists()
    # The other way of saying the same is what was expected: what fails here comes after.
    given = expected_of(read(tiny_config, {"publish.approval": "true", "version": "1.0.1"}))
    other_way = "version: 1.0.1\npublish:\n  approval: true\n"
    with pytest.raises(BadInput, match="needs a run of a deployment"):
        release(str(tiny_config), more=other_way, artifacts=str(tmp_path / "a"), expected=given)


def test_a_config_that_says_the_same_in_another_way_has_the_same_sum(tiny_config: Path) -> None:
    before = read(tiny_config).sha256
    lines = tiny_config.read_text("utf-8").splitlines()
    assert lines[0] == "audit:"
    tiny_config.write_text("# a comment\n" + "\n".join([*lines[3:], *lines[:3]]), encoding="utf-8")
    assert read(tiny_config).sha256 == before
    assert read(tiny_config, {"seed": "1"}).sha256 != before


@pytest.mark.parametrize("command", ["approve", "submit", "deploy"])
def test_a_server_that_does_not_answer_is_two_lines(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    arguments: dict[str, list[str | Path]] = {
        "approve": [str(uuid4()), "--by", "Ada", "--comment", "as agreed"],
        "submit": [tiny_config],
        "deploy": ["--configs", tiny_config.parent],
    }
    cause, remedy = refused(command, *arguments[command], by=called)
    assert "no Prefect server answers" in cause
    assert "PREFECT_API_URL" in remedy


# Waiting for the end of a run


class Server:
    """Stands in for the server: it answers one after the other, with a status or with a run, to the real client."""

    def __init__(self) -> None:
        self.answers: Iterator[int | FlowRun] = iter(())
        self.waits: list[float] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert "/flow_runs/" in request.url.path
        answer = next(self.answers, None)
        assert answer is not None, "asked once more than was expected"
        if isinstance(answer, FlowRun):
            return httpx.Response(200, json=answer.model_dump(mode="json"))
        return httpx.Response(answer, json={"detail": "ordered"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The client asks `Server`, and nothing waits; what the client itself tries again by default, it tries once."""
    server = Server()
    asking = {"transport": httpx.MockTransport(server.answer)}
    monkeypatch.setattr(
        "flows.server.submit.get_client", lambda sync_client: get_client(httpx_settings=asking, sync_client=True)
    )
    monkeypatch.setattr("flows.server.submit.time", SimpleNamespace(sleep=server.waits.append))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield server


def test_a_server_that_answers_with_errors_of_its_own_is_waited_for(server: Server) -> None:
    begun = FlowRun(flow_id=uuid4(), state=Running())
    server.answers = iter([begun, 503, 503, 500, begun.model_copy(update={"state": Completed()})])
    told: list[str] = []
    ended = _end_of(begun, told.append)
    assert ended.state is not None
    assert ended.state.is_completed()
    says = ["Running", "the server answers with status 503", "the server answers with status 500", "Completed"]
    assert told == [f"run {begun.id}: {one}" for one in says]
    assert len(server.waits) == 4


@pytest.mark.parametrize("status", [401, 404])
def test_a_server_that_refuses_to_tell_of_a_run_is_not_waited_for(server: Server, status: int) -> None:
    server.answers = iter([status])
    told: list[str] = []
    with pytest.raises((httpx.HTTPStatusError, WorkFailed)) as caught:
        _end_of(FlowRun(flow_id=uuid4(), state=Running()), told.append)
    assert status != 404 or "was deleted while it was watched" in str(caught.value)
    assert told == []
    assert server.waits == []
