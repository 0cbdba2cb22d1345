"""Releases that were killed with SIGKILL go on where they stopped and publish the bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from taylor_ops.files import read_json, sha256_of_tree
from tests.flows.conftest import write_tiny_config
from tests.integration import killed_run
from tests.tiny_models import save_tiny_model

ROOT = Path(__file__).parents[2]
LAYERS = 3

Run = Callable[..., int]
"""Runs the release into an artifacts folder, perhaps killed and with settings; gives the exit status."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One Prefect server for all runs: each would start its own."""
    place = tmp_path_factory.mktemp("killed")
    config = write_tiny_config(place / "tiny.yaml", save_tiny_model(place / "model", num_hidden_layers=LAYERS))
    with prefect_test_harness(server_startup_timeout=180):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            "HF_MODULES_CACHE": str(place / "modules"),
        }

        def start(artifacts: Path, killed: str | None = None, *settings: str) -> int:
            chosen = [part for setting in settings for part in ("--set", setting)]
            request = {"arguments": ["run", str(config), "--artifacts", str(artifacts), *chosen], "killed": killed}
            command = [sys.executable, killed_run.__file__]
            ended = subprocess.run(
                command, input=json.dumps(request), text=True, check=False, env=environment, capture_output=True
            )
            print(ended.stdout, ended.stderr)
            return ended.returncode

        yield start


@pytest.fixture(scope="module")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of what a run publishes that nobody disturbs."""
    artifacts = tmp_path_factory.mktemp("undisturbed")
    assert run(artifacts) == 0
    hashes = sha256_of_tree(artifacts / "hub")
    assert sum(name.endswith(".safetensors") for name in hashes) == LAYERS + 1
    return hashes


def same_files(folder: Path) -> dict[str, int]:
    """The files of a folder by what the disk knows them by: a file that is written anew has another number."""
    return {path.name: path.stat().st_ino for path in folder.iterdir() if path.is_file()}


def test_a_release_that_is_killed_five_times_publishes_what_an_undisturbed_one_does(
    run: Run, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    stages = tmp_path / "tiny" / "stages"
    captured, conversions = stages / ".capture.kept", stages / ".convert.kept"

    # What is kept under another config is not gone on with.
    assert run(tmp_path, "in a layer", "calibration.sequence_tokens=256") == -signal.SIGKILL
    assert run(tmp_path, "in a layer") == -signal.SIGKILL
    assert sorted(path.name for path in captured.glob("found-*")) == ["found-0.safetensors"]
    assert len(list((captured / "states-1").iterdir())) > 1

    assert run(tmp_path, "between layers", "conversion.range_margin=0.4") == -signal.SIGKILL
    assert not captured.exists()
    (other,) = (path for path in conversions.iterdir() if path.is_dir())
    assert run(tmp_path, "between layers") == -signal.SIGKILL
    (converted,) = (path for path in conversions.iterdir() if path.is_dir())
    assert not other.exists()
    assert sorted(path.name for path in converted.glob("0*")) == ["00000", "00001"]
    finished = same_files(converted / "00001")

    assert run(tmp_path, "in a shard") == -signal.SIGKILL
    assert sorted(path.name for path in converted.glob("0*")) == ["00000", "00001"]
    assert list(converted.glob(".00002.*/00002/.shard-0.safetensors"))
    assert same_files(converted / "00001") == finished
    assert not (tmp_path / "hub").exists()

    assert run(tmp_path) == 0
    stages_of = read_json(tmp_path / "tiny" / "1.0.0" / "release.json")["stages"]
    assert stages_of["capture"]["cached"]
    assert not stages_of["convert"]["cached"]
    assert sha256_of_tree(tmp_path / "hub") == undisturbed
    assert not list(stages.glob(".*.kept"))
