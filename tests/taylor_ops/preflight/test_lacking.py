"""The warnings of the command `plan`, and what its table says of stages and of all of them together."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.console import Console

from flows.commands.tables import preflight_table
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.model.shape import ModelShape
from taylor_ops.preflight import lacking as place
from taylor_ops.preflight.known_source import KnownSource
from taylor_ops.preflight.lacking import lacking
from taylor_ops.preflight.record import Preflight, ProbeSample

HUB = {"kind": "hub", "repo_id": "owner/tiny", "revision": "0" * 40}
SECONDS = {"resolve": 2.4, "capture": 30.0, "transfer": 0.0, "convert": 1000.0}


def config_of(**publish: Any) -> ReleaseConfig:
    return ReleaseConfig.model_validate(
        {
            "name": "tiny",
            "version": "1.0.0",
            "source": HUB,
            "card": {"license": "llama3"},
            "publish": {"repo_id": "owner/tiny-taylor", **publish},
        }
    )


def source(access: str = "public") -> KnownSource:
    # What it knows of the weights decides nothing here.
    return KnownSource(cast("ModelShape", None), access, "llama3", 0)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens of this machine, of which the first one counts."""
    tokens: list[str] = []
    monkeypatch.setattr(place, "get_token", lambda: next(iter(tokens), None))
    return tokens


def test_a_release_on_the_hub_without_a_token_is_warned_of(token: list[str]) -> None:
    (warning,) = lacking(config_of(target="hub"), source())
    assert "there is no token for the Hub" in warning
    assert all(way in warning for way in ("HF_TOKEN", "hf auth login", "publish.token_secret"))
    assert lacking(config_of(target="hub", token_secret="hub-token"), source()) == ()
    assert lacking(config_of(target="folder"), source()) == ()
    token.append("hf_secret")
    assert lacking(config_of(target="hub"), source()) == ()


def test_the_licence_of_a_gated_source_has_to_be_accepted(token: list[str]) -> None:
    (warning,) = lacking(config_of(), source("gated, open to this account"))
    assert "accept its licence (llama3) on https://huggingface.co/owner/tiny" in warning
    assert lacking(config_of(), source("private")) == ()


def shown(warnings: tuple[str, ...] = (), captured: bool = False, seconds: dict[str, float] = SECONDS) -> str:
    sample = ProbeSample(
        layers=2, tokens=1024, total_tokens=16384, captured=captured, layers_timed=2, pairs=7, busy=False
    )
    estimate = Preflight(
        origin="local folder tiny",
        access="local files",
        source_license="mit",
        card_license="mit",
        neurons=96,
        layers=2,
        sample=sample,
        target=3.0,
        reachable=(1.5, 9.0),
        cheapest=2.0,
        cheapest_slowdown=2.0,
        least_protected=1.0,
        protected=1.0,
        mean_order=3.0,
        read_bytes=10,
        to_fetch=0,
        bundle_bytes=30,
        original_bytes=10,
        disk_needed=1,
        disk_free=2,
        peak_bytes=1,
        least_bytes=1,
        memory_free=2,
        seconds=seconds,
        warnings=warnings,
    )
    stream = io.StringIO()
    Console(file=stream, width=160).print(preflight_table(estimate))
    return stream.getvalue()


def row(text: str, name: str) -> str:
    (found,) = [line for line in text.splitlines() if line.strip("│ ").startswith(f"{name} ")]
    return [cell.strip() for cell in found.strip("│").split("│")][1]


def test_the_stages_have_a_total_and_none_is_called_done_before_anything_ran() -> None:
    text = shown()
    assert [row(text, name) for name in ("resolve", "capture", "transfer", "convert")] == ["2", "30", "none", "1,000"]
    assert row(text, "in all") == "1,032"
    assert "done" not in text
    again = shown(captured=True, seconds=SECONDS | {"capture": 0.0})
    assert row(again, "capture") == "reused"


def test_warnings_come_before_the_estimate() -> None:
    first, second, *rest = shown(("there is no [token]", "it is gated")).splitlines()
    assert (first.strip(), second.strip()) == ("warning: there is no [token]", "warning: it is gated")
    assert "warning" not in "".join(rest)
    assert "warning" not in shown()
