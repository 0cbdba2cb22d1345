"""Runs that are killed with SIGKILL under a real server and worker end by a retry; releases queue for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from taylor_ops.files import sha256_of_tree
from tests.flows.conftest import write_tiny_config
from tests.integration.documented import documented
from tests.integration.killed import STAGES, Halted, deploy_halted, record_of, silence_of
from tests.integration.operated import Prefect
from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    running = Prefect(tmp_path_factory.mktemp("killed"))
    try:
        running.start(documented("prefect server start"))
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def deployment(prefect: Prefect) -> str:
    """The id of a deployment of the halted flow, for a tiny model."""
    config = write_tiny_config(prefect.place / "tiny.yaml", save_tiny_model(prefect.place / "model"))
    found = deploy_halted(prefect, config)
    prefect.start(documented("prefect worker start --pool local"))
    return found


@pytest.fixture(scope="module")
def queued(prefect: Prefect, deployment: str, tmp_path_factory: pytest.TempPathFactory) -> list[Halted]:
    """Three runs that were submitted at once, with one slot of a GPU between them, when all have ended."""
    place = tmp_path_factory.mktemp("queued")
    runs = [Halted(prefect, deployment, place / name, gpu=True) for name in "abc"]
    for run in runs:
        run.start()
    for run in runs:
        assert run.until("COMPLETED", "FAILED", "CRASHED") == "COMPLETED"
    return runs


def test_of_three_releases_at_once_on_one_worker_never_two_hold_the_gpu_and_all_complete(queued: list[Halted]) -> None:
    held = sorted(slot for run in queued for slot in run.held())
    assert len(held) == 3 * len(("capture", "calibrate", "validate", "audit"))
    assert all(given_back <= taken for (_, given_back), (taken, _) in pairwise(held))


def test_a_run_whose_process_machine_and_server_are_killed_ends_as_an_undisturbed_one(
    prefect: Prefect, deployment: str, queued: list[Halted], tmp_path: Path
) -> None:
    run = Halted(prefect, deployment, tmp_path / "killed")
    run.start("capture")
    run.kill("process", run.halted())

    # In place of 90 seconds; the server takes nothing below 10.
    silence_of(prefect, 10)
    run.retry("convert")
    run.kill("worker", run.halted())
    silence_of(prefect, 90)

    run.retry("publish")
    run.kill("server", run.halted())
    if run.until("COMPLETED", "FAILED", "CRASHED") != "COMPLETED":
        run.retry()
        run.until("COMPLETED")

    assert run.finished() == list(STAGES[:-1])
    stages = record_of(run.artifacts)["stages"]
    assert stages["capture"]["cached"]
    assert sha256_of_tree(run.artifacts / "hub") == sha256_of_tree(queued[0].artifacts / "hub")
    assert len({tuple(sha256_of_tree(one.artifacts / "hub").items()) for one in queued}) == 1
