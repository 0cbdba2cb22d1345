"""A tiny release that runs through the real flow on a real, temporary Prefect server; only the clock is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.release import release
from taylor_ops.latency import timing
from taylor_ops.verification import verify
from tests.support.prefect_database import temporary_server
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import decode_seconds, in_this_process, write_tiny_config


@pytest.fixture(scope="session")
def prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with temporary_server(prefect_database, tmp_path_factory.mktemp("prefect-server")):
        yield


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("original"))


@pytest.fixture
def simulated_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """`decode_seconds` in place of the clock."""
    monkeypatch.setattr(timing, "decode_seconds", decode_seconds)


@pytest.fixture
def consumer_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles say their tokens here, in place of a process of their own: to start one takes longer than a release."""
    monkeypatch.setattr(verify, "clean_process", in_this_process)


@pytest.fixture(scope="session")
def tiny_release(prefect_server: None, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts folder of one release of the tiny config, which nobody writes to.

    Tests of what a later run does begin with copies: a release of its own for each would prove the same again.
    """
    place = tmp_path_factory.mktemp("tiny-release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "decode_seconds", decode_seconds)
        patch.setattr(verify, "clean_process", in_this_process)
        release(str(write_tiny_config(place / "tiny.yaml", tiny_llama)), artifacts=str(place / "artifacts"))
    return place / "artifacts"


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_tiny_config(tmp_path / "tiny.yaml", tiny_llama)
