"""Patience with the Hub: every wait has a floor and counts, what is waited for is said, and odd answers end a run."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest

from taylor_ops.config.source import HubSource
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.publishing.retries import Patience
from taylor_ops.source.hub import told_by_the_hub
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import REPO, content_at, content_in, impatient, publish, write_bundle
from tests.support.loopback_hub.faults import Fault
from tests.support.loopback_hub.server import WRITER

VERSION = "1.0.0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", VERSION)


class Clock:
    """A clock that passes by what is waited and by what each request lasts."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.waits.append(seconds)

    def failing(self, lasts: float) -> None:
        """A request that fails after so many seconds."""
        self.now += lasts
        raise httpx2.ConnectError("refused")


@pytest.mark.parametrize("asked", ["0", "00", "1"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_asks_for_no_wait_is_not_asked_without_end(hub: Hub, bundle: Path, asked: str, status: int) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", status=status, headers={"Retry-After": asked}, times=10_000))
    with pytest.raises(WorkFailed, match=f"{status}: ordered"):
        publish(bundle, VERSION, impatient(budget=900, waits=waits))
    assert len(hub.faults.seen) < 40
    assert 840 <= sum(waits) <= 900


def test_the_limits_in_an_answer_are_waited_for(hub: Hub, bundle: Path) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", kind="tag", status=429, headers={"ratelimit": '"api";r=0;t=25'}))
    publish(bundle, VERSION, impatient(waits=waits))
    assert waits == [25.0]


def test_a_short_wait_in_an_upload_repeats_that_part_alone(hub: Hub, bundle: Path) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", kind="lfs_put", status=503, headers={"Retry-After": "2"}))
    publish(bundle, VERSION, impatient(waits=waits))
    assert waits == []
    hub.faults.clear()
    hub.faults.order(Fault("answer", kind="lfs_put", status=503, headers={"Retry-After": "25"}))
    publish(write_bundle(bundle.parent / "new", "1.1.0"), "1.1.0", impatient(waits=waits))
    assert waits == [25.0]


def test_a_wait_longer_than_the_budget_ends_at_once(hub: Hub, bundle: Path) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", status=429, headers={"Retry-After": "9" * 400}, times=99))
    with pytest.raises(WorkFailed, match="429"):
        publish(bundle, VERSION, impatient(waits=waits))
    assert waits == []
    assert len(hub.faults.seen) == 1


@pytest.mark.parametrize(("lasts", "counted"), [(20.0, 20.0), (3600.0, 60.0)])
def test_requests_that_fail_count_as_long_as_silence(lasts: float, counted: float) -> None:
    clock = Clock()
    patience = Patience(budget=200, sleep=clock.sleep, clock=lambda: clock.now)
    with pytest.raises(httpx2.ConnectError):
        patience(lambda: clock.failing(lasts))
    requests = (clock.now - sum(clock.waits)) / lasts
    assert patience.waited == pytest.approx(sum(clock.waits) + requests * counted)
    assert patience.waited <= 200 + counted


def test_the_budget_is_of_all_requests_together() -> None:
    clock = Clock()
    patience = Patience(budget=200, sleep=clock.sleep, clock=lambda: clock.now)
    for _request in range(3):
        with pytest.raises(httpx2.ConnectError):
            patience(lambda: clock.failing(1.0))
    assert patience.waited <= 200 + 3


def test_waiting_is_said_at_once_and_then_every_half_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock, said = Clock(), list[float]()

    class At(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            said.append(clock.now)

    handler = At()
    logging.getLogger("taylor_ops.publishing.retries").addHandler(handler)
    patience = Patience(budget=400, sleep=clock.sleep, clock=lambda: clock.now)
    with pytest.raises(httpx2.ConnectError):
        patience(lambda: clock.failing(0.0))
    logging.getLogger("taylor_ops.publishing.retries").removeHandler(handler)
    assert said[0] == 0.0
    assert len(said) > 5
    assert all(later - earlier == pytest.approx(30) for earlier, later in pairwise(said))
    assert "waiting for the Hub (ConnectError: refused)" in caplog.text
    assert "of 400 s of patience are spent" in caplog.text


ODD: list[object] = [
    None,
    [],
    {},
    "text",
    3,
    [[]],
    [3],
    {"name": []},
    {"branches": 3},
    {"sha": []},
    {"files": {}},
    {"private": 1},
]


@pytest.mark.parametrize("body", ODD, ids=json.dumps)
def test_json_of_another_form_is_a_failed_answer(hub: Hub, bundle: Path, body: object) -> None:
    publish(bundle, VERSION)
    kinds = list(hub.faults.seen)
    new = write_bundle(bundle.parent / "new", "1.1.0")
    for kind in dict.fromkeys(kinds):
        hub.faults.clear()
        hub.faults.order(Fault("answer", kind=kind, status=200, body=json.dumps(body).encode(), times=1))
        before = content_at(hub.store, "main")
        with suppress(ReleaseError):
            publish(new, "1.1.0", impatient(budget=0))
        assert content_at(hub.store, "main") in (before, content_in(new)), kind
    hub.faults.clear()
    publish(new, "1.1.0")
    assert content_at(hub.store, "v1.1.0") == content_in(new)
    assert "refs/heads/staging" not in " ".join(hub.store.repositories[REPO].refs)


@pytest.mark.parametrize("kind", ["whoami", "info", "refs", "tree"])
def test_what_has_another_form_is_named(hub: Hub, bundle: Path, kind: str) -> None:
    publish(bundle, VERSION)
    hub.faults.order(Fault("answer", kind=kind, status=200, body=b"[3]", times=9))
    with pytest.raises(WorkFailed, match="its answer has another form than expected"):
        publish(write_bundle(bundle.parent / "new", "1.1.0"), "1.1.0", impatient(budget=0))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 418, 500])
def test_no_request_of_a_hub_that_echoes_the_token_brings_it_into_an_error(
    hub: Hub, bundle: Path, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(bundle, VERSION)
    kinds = dict.fromkeys(hub.faults.seen)
    token = "correct-horse-battery-staple"
    hub.accounts[token] = hub.accounts[WRITER]
    monkeypatch.setenv("HF_TOKEN", token)
    new, ended = write_bundle(bundle.parent / "new", "1.1.0"), list[str]()
    for kind in kinds:
        hub.faults.clear()
        said = f"{token} at https://x/y?token={token}"
        headers = {"X-Request-Id": token}
        hub.faults.order(Fault("answer", kind=kind, status=status, message=said, headers=headers, times=99))
        try:
            publish(new, "1.1.0", impatient(budget=3))
        except ReleaseError as error:
            ended.append(f"{error} {error!r} {error.__cause__!r}")
    # These two are put into words of our own.
    assert sum("***" in error for error in ended) >= 3 or status in (401, 404)
    assert len(ended) > 3
    assert [error for error in ended if token in error] == []
    assert all(token not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("body", ODD, ids=json.dumps)
def test_json_of_another_form_about_a_source_is_bad_input(hub: Hub, bundle: Path, body: object) -> None:
    publish(bundle, VERSION)
    source = HubSource(kind="hub", repo_id=REPO, revision=hub.store.repositories[REPO].refs["refs/heads/main"])
    hub.faults.clear()
    hub.faults.order(Fault("answer", kind="info", status=200, body=json.dumps(body).encode()))
    with suppress(BadInput):
        told_by_the_hub(source)
    assert hub.faults.injected
