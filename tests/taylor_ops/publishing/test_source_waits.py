"""To fetch a source from a busy Hub is waited for within a budget, with a floor under every wait, and it is told."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import http_backoff

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import HubSource
from taylor_ops.errors import BadInput
from taylor_ops.publishing.hub_repository import patient_client
from taylor_ops.source.card_files import card_files
from taylor_ops.source.resolve import brought_here
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import REPO, client_on_loopback, impatient, publish, write_bundle
from tests.support.loopback_hub.faults import Fault


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in with one repository, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with client_on_loopback(tmp_path / "store") as hub:
        publish(write_bundle(tmp_path / "bundle", "1.0.0"), "1.0.0")
        hub.faults.clear()
        yield hub


def source(hub: Hub) -> HubSource:
    commit = hub.store.repositories[REPO].refs["refs/tags/v1.0.0"]
    return HubSource(kind="hub", repo_id=REPO, revision=commit)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "7"}], ids=str)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_waited_for_and_that_is_told_at_once(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, headers: dict[str, str]
) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", times=2, status=status, headers=headers))
    with caplog.at_level(logging.WARNING), patient_client(impatient(waits=waits)) as patience:
        place, _ = brought_here(source(hub), tmp_path / "work", ask=patience)
    assert (place / "model-00002-of-00002.safetensors").is_file()
    assert len(waits) == 2
    assert min(waits) >= max(0.5, float(headers.get("Retry-After", 0)))
    assert f"waiting for the Hub ({status}" in caplog.text


def test_a_file_of_the_card_is_waited_for_too(hub: Hub, tmp_path: Path) -> None:
    config = ReleaseConfig.model_validate(
        {
            "name": "tiny",
            "version": "1.0.0",
            "source": source(hub).model_dump(),
            "latency": {"target_slowdown": 1.6},
            "card": {"license": "mit", "files": ["only-in-1.0.0.txt"]},
            "publish": {"repo_id": REPO},
        },
        context={"folder": tmp_path},
    )
    waits: list[float] = []
    with patient_client(impatient(waits=waits)) as patience:
        place, _ = brought_here(config.source, tmp_path / "work", ask=patience)
        hub.faults.order(Fault("answer", times=2, status=429))
        found = card_files(config, place, patience)
    assert found["only-in-1.0.0.txt"].read_text(encoding="utf-8") == "1.0.0"
    assert waits


def test_what_the_client_repeats_by_itself_is_told_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with (
        caplog.at_level(logging.WARNING),
        patient_client(impatient()),
        pytest.raises(httpx2.ConnectError),
    ):
        http_backoff("GET", f"http://127.0.0.1:{port}/signed?by=me", max_retries=3)
    assert len(waits) == 3
    assert caplog.messages == ["waiting for the Hub: 127.0.0.1 does not answer and is asked again"]


def test_a_hub_that_stays_busy_is_given_up_when_the_budget_is_spent(hub: Hub, tmp_path: Path) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", times=10**6, status=429, headers={"Retry-After": "0"}))
    with patient_client(impatient(budget=20.0, waits=waits)) as patience, pytest.raises(BadInput, match="429"):
        brought_here(source(hub), tmp_path / "work", ask=patience)
    assert 1 < sum(waits) <= 20
    assert len(hub.faults.injected) <= len(waits) + 1
