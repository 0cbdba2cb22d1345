"""Releases under a real server and worker that are killed with SIGKILL go on where they stopped, byte for byte."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taylor_ops.storage.files import read_json, sha256_of_tree
from tests.support.documented import documented, told
from tests.support.killed import STAGES, Halted, deploy_halted, silence_of, silent_run
from tests.support.operated import Prefect
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import write_tiny_config

LAYERS = 3
# The command `taylor-release`, which halts where it is told to, and says every second that it is alive.
HALTS = """
import sys
from pathlib import Path
from flows.commands.main import main
from flows.run import pulse
from tests.support import halted_release
pulse.SECONDS_BETWEEN_BEATS = 1
halted_release.watch(Path(sys.argv[-1]))
main()
"""


@pytest.fixture(scope="module")
def prefect(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    running = Prefect(tmp_path_factory.mktemp("killed"), prefect_database)
    try:
        running.start(documented("prefect server start"))
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def deployment(prefect: Prefect) -> str:
    """The id of a deployment of the halted flow, for a tiny model."""
    model = save_tiny_model(prefect.place / "model", num_hidden_layers=LAYERS)
    found = deploy_halted(prefect, write_tiny_config(prefect.place / "tiny.yaml", model))
    prefect.start(documented("prefect worker start --pool local"))
    return found


def same_files(folder: Path) -> dict[str, int]:
    """The files of a folder by what the disk knows them by: a file that is written anew has another number."""
    return {path.name: path.stat().st_ino for path in folder.iterdir() if path.is_file()}


def test_a_release_that_is_killed_again_and_again_ends_as_one_that_was_not(
    prefect: Prefect, deployment: str, tmp_path: Path
) -> None:
    undisturbed = Halted(prefect, deployment, tmp_path / "undisturbed")
    aside = undisturbed.start()
    killed = Halted(prefect, deployment, tmp_path / "killed")
    stages = killed.artifacts / "tiny" / "stages"
    captured, conversions = stages / ".capture.kept", stages / ".convert.kept"

    # The process of a run dies. What is kept under another config is not gone on with.
    other = killed.start("in a layer", calibration={"sequence_tokens": 256})
    killed.kill(other, "process")
    run = killed.start("in a layer")
    killed.kill(run, "process")
    assert sorted(path.name for path in captured.glob("found-*")) == ["found-0.safetensors"]
    assert len(list((captured / "states-1").iterdir())) > 1

    other = killed.start("between layers", conversion={"range_margin": 0.4})
    killed.kill(other, "process")
    assert not captured.exists()
    (parts_of_other,) = (path for path in conversions.iterdir() if path.is_dir())

    # The machine dies, before the run has said for the first time that it is there: the automation finds it. After 40
    # seconds in place of 90; a run says so every 30.
    assert undisturbed.until(aside, "COMPLETED", "FAILED", "CRASHED") == "COMPLETED"
    silence_of(prefect, 40)
    killed.halt_at("between layers")
    prefect.typed(told("prefect flow-run retry", run))
    killed.kill(run, "worker")
    silence_of(prefect, 90)
    assert not parts_of_other.exists()
    (converted,) = (path for path in conversions.iterdir() if path.is_dir())
    assert sorted(path.name for path in converted.glob("0*")) == ["00000", "00001"]
    parts = same_files(converted / "00001")

    killed.retry(run, "in a shard")
    killed.kill(run, "process")
    assert sorted(path.name for path in converted.glob("0*")) == ["00000", "00001"]
    assert list(converted.glob(".00002.*/00002/.shard-0.safetensors"))
    assert same_files(converted / "00001") == parts
    assert not (killed.artifacts / "hub").exists()

    # The server dies while a slot of a GPU is held, and gets it back all the same: else the audit would wait for ever.
    (killed.artifacts / "gpu").touch()
    killed.retry(run, "validate")
    killed.halted(run)
    prefect.kill("server")
    prefect.start(documented("prefect server start --host"))
    killed.halt_at("publish")
    killed.go_on()

    # It dies once more, and the run gets over that, or a retry does.
    killed.kill(run, "server")
    if killed.until(run, "COMPLETED", "FAILED", "CRASHED") != "COMPLETED":
        killed.retry(run)
        killed.until(run, "COMPLETED")

    (limit,) = prefect.asked("v2/concurrency_limits/filter", {})
    assert (limit["name"], limit["active_slots"]) == ("gpu", 0)
    hashes = sha256_of_tree(undisturbed.artifacts / "hub")
    assert sum(name.endswith(".safetensors") for name in hashes) == LAYERS + 1
    assert sha256_of_tree(killed.artifacts / "hub") == hashes
    assert undisturbed.finished() == list(STAGES[:-1])
    # The other config captured what this one does, and was killed when its plan was timed elsewhere.
    assert sorted(killed.finished()) == sorted([*STAGES[:-1], "calibrate", "transfer"])
    assert read_json(killed.artifacts / "tiny" / "1.0.0" / "release.json")["stages"]["capture"]["cached"]
    assert not list(stages.glob(".*.kept"))


def test_a_release_that_no_worker_started_is_not_taken_for_dead_while_it_works(
    prefect: Prefect, deployment: str, tmp_path: Path
) -> None:
    halted = Halted(prefect, deployment, tmp_path / "artifacts")
    halted.halt_at("resolve")
    silence_of(prefect, 10)
    arguments = ["run", str(prefect.place / "tiny.yaml"), "--artifacts", str(halted.artifacts)]
    before = {found["id"] for found in prefect.runs()}
    process = prefect.begun(shlex.join([sys.executable, "-c", HALTS, *arguments]))
    assert process.stdout is not None
    assert any("Beginning flow run" in line for line in process.stdout)
    (run,) = (found["id"] for found in prefect.runs() if found["id"] not in before)
    halted.halted(run)
    assert prefect.until(silent_run(prefect, deployment), "CRASHED") == "CRASHED"
    assert prefect.state(run) == "RUNNING"
    process.terminate()
    process.communicate()
    silence_of(prefect, 90)
