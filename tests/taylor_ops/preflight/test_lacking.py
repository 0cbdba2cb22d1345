"""The warnings of the command `plan`, and what its table says of stages and of all of them together."""

from __future__ import annotations

from typing import Any, cast

import pytest

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.model.shape import ModelShape
from taylor_ops.preflight import lacking as place
from taylor_ops.preflight.known_source import KnownSource
from taylor_ops.preflight.lacking import lacking
from tests.support.preflight_example import example, shown

HUB = {"kind": "hub", "repo_id": "owner/tiny", "revision": "0" * 40}


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


def row(text: str, name: str) -> str:
    (found,) = [line for line in text.splitlines() if line.strip("│ ").startswith(f"{name} ")]
    return [cell.strip() for cell in found.strip("│").split("│")][1]


def test_the_stages_have_a_total_and_none_is_called_done_before_anything_ran() -> None:
    found = example()
    text = shown(found)
    assert [row(text, name) for name in ("resolve", "capture", "transfer", "convert")] == ["2", "30", "none", "1,000"]
    assert row(text, "in all") == "1,032"
    assert "done" not in text
    short = shown(example(seconds={"resolve": 0.3, "convert": 0.4}))
    assert [row(short, name) for name in ("resolve", "convert", "in all")] == ["under 1"] * 3
    assert found.sample is not None
    before = found.sample.model_copy(update={"captured": True})
    again = shown(example(sample=before, seconds=found.seconds | {"capture": 0.0}))
    assert row(again, "capture") == "reused"


def test_warnings_come_before_the_estimate() -> None:
    warnings = ("there is no [token]", "it is gated")
    first, second, *rest = shown(example(warnings=warnings)).splitlines()
    assert (first.strip(), second.strip()) == ("warning: there is no [token]", "warning: it is gated")
    assert "warning" not in "".join(rest)
    assert "warning" not in shown(example())
