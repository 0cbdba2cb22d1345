"""A deployment run as people run it: real Prefect server, process work pool, worker and database, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import urllib3
import yaml

from taylor_ops.files import read_json
from tests.tiny_models import save_tiny_model

ROOT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prefect:
    """A Prefect home of its own, and the programs that were started in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.environment = os.environ | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> None:
        """Start a program that stays; what it says goes into a file beside the home."""
        with (self.home.parent / f"{arguments[0]}.log").open("w") as log:
            process = subprocess.Popen(
                [PREFECT, *arguments],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)

    def wait_for_the_server(self) -> None:
        """Ask the server for its health until it answers."""
        patient = urllib3.Retry(total=200, backoff_factor=0.1, backoff_max=0.5)
        answer = urllib3.PoolManager(retries=patient).request("GET", f"{self.environment['PREFECT_API_URL']}/health")
        assert answer.status == 200

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            [PREFECT, *arguments], env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )

    def stop(self) -> None:
        for process in reversed(self.started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    running = Prefect(tmp_path_factory.mktemp("prefect"))
    try:
        running.start("server", "start", "--host", "127.0.0.1", "--port", str(running.port))
        running.wait_for_the_server()
        pool = running.call("work-pool", "create", "local", "--type", "process")
        assert pool.returncode == 0, pool.stderr
        deployed = running.call("--no-prompt", "deploy", "--all")
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        running.start("worker", "start", "--pool", "local")
        yield running
    finally:
        running.stop()


def test_there_is_one_deployment_for_each_config(prefect: Prefect) -> None:
    configs = {path.stem for path in (ROOT / "release_configs").glob("*.yaml")}
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {entry["name"] for entry in declared} == configs
    assert {entry["parameters"]["config"] for entry in declared} == {f"release_configs/{name}.yaml" for name in configs}
    listed = prefect.call("deployment", "ls").stdout
    assert all(f"release/{name}" in listed for name in configs)


def test_a_worker_releases_a_model_and_a_bad_config_fails_the_run(prefect: Prefect, tmp_path: Path) -> None:
    original = save_tiny_model(tmp_path / "original")
    config = tmp_path / "tiny.yaml"
    document = {
        "name": "tiny",
        "version": "1.0.0",
        "source": {"kind": "folder", "path": str(original)},
        "calibration": {"tokens": 4096},
        # The tolerance leaves room for the clock of a busy machine: what is tested here is the worker.
        "latency": {"target_slowdown": 1.7, "tolerance": 0.5, "pairs": 15, "new_tokens": 8},
        "conversion": {"tolerance": 1e-4},
        "exactness": {
            "prompts": [{"name": "project", "builtin": "held_out", "limit": 4}],
            "new_tokens": 8,
            "running_tokens": 128,
        },
        "card": {"license": "mit"},
        "publish": {"repo_id": "org/tiny"},
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    run = ["deployment", "run", "release/smollm2", "--watch", "-p", f"artifacts={tmp_path / 'artifacts'}"]

    done = prefect.call(*run, "-p", f"config={config}")
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(tmp_path / "artifacts" / "tiny" / "1.0.0" / "release.json")
    assert (tmp_path / "artifacts" / record["published"]["path"] / "config.json").is_file()

    config.write_text(config.read_text(encoding="utf-8") + "sede: 1\n", encoding="utf-8")
    refused = prefect.call(*run, "-p", f"config={config}")
    assert refused.returncode == 1
