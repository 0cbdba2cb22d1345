"""A Hub that echoes the token in its errors does not bring it into the output or into Prefect's database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging.handlers import APILogHandler
from prefect.settings import get_current_settings

from flows.run.log_filter import secrets_kept
from taylor_ops.errors import ReleaseError, WorkFailed
from tests.flows.test_release_on_the_hub import HUB, places_that_hold
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import client_on_loopback
from tests.support.loopback_hub.faults import Fault
from tests.support.loopback_hub.store import Account
from tests.support.released import released

TRIES = 6
TOKENS = {
    "hf_oauth_": "hf_oauth_eyJ0eXAi.OiJK-V1Qi_LCJ",
    "hf_jwt_": "hf_jwt_eyJ0eXAi.OiJK-V1Qi_LCJ",
    "api_org_": "api_org_QwErTyUiOpAsDfGhJkLzXcVbNm",
    "of no form": "correct-horse-battery-staple",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with client_on_loopback(tmp_path / "hub-store") as hub:
        yield hub


@pytest.mark.usefixtures("prefect_server", "simulated_clock")
@pytest.mark.parametrize("form", TOKENS)
def test_what_a_hub_echoes_is_masked_in_output_and_database(
    form: str,
    tiny_config: Path,
    tmp_path: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    token = TOKENS[form]
    monkeypatch.setenv("HF_TOKEN", token)
    hub.accounts[token] = Account("writer", orgs=("org",))
    ended = []
    for status in (400, 403, 404, 418):
        said = f"status {status}: the token {token} of {form} cannot do this"
        hub.faults.order(Fault("answer", kind="whoami", times=TRIES, status=status, message=said))
        with pytest.raises(ReleaseError) as caught:
            released(tiny_config, tmp_path / "a", HUB)
        hub.faults.clear()
        ended.append(str(caught.value))
    logging.getLogger("prefect.flow_runs").warning("said in a log: %s", token)
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        if isinstance(handler, APILogHandler):
            handler.flush()
    output = "".join(capfd.readouterr())
    database = get_current_settings().server.database.connection_url
    assert database is not None
    kept = Path(database.get_secret_value().partition("///")[2]).parent
    assert any("***" in text for text in ended)
    assert places_that_hold(f"of {form} cannot do this", kept), "the database holds nothing of the errors"
    assert token not in "".join(ended)
    assert token not in output
    assert places_that_hold(token, kept) == []
    assert places_that_hold(token, tmp_path / "a") == []


def test_an_unexpected_error_with_a_secret_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery-staple")
    with pytest.raises(WorkFailed, match=r"unexpected KeyError: .*\*\*\*") as caught, secrets_kept():
        raise KeyError("correct-horse-battery-staple")
    assert caught.value.__cause__ is None
    with pytest.raises(KeyError, match="plain"), secrets_kept():
        raise KeyError("plain")
