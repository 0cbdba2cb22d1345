"""A temporary Prefect server does not outlive the run that started it, however that run ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

ROOT = Path(__file__).parents[3]
RUN = """
import signal
from prefect.server.api.server import SubprocessASGIServer
from flows.run.temporary_server import start_temporary_server
start_temporary_server()
print("started", SubprocessASGIServer().server_process.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def without_a_server(prefect_database: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a run that finds Prefect's database in its home, and no server."""
    shutil.copyfile(prefect_database, tmp_path / "prefect.db")
    environment = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    return environment | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_a_run_that_is_ended_from_outside(
    without_a_server: dict[str, str], how: signal.Signals
) -> None:
    environment = without_a_server | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    server = psutil.Process(next(int(line.split()[1]) for line in run.stdout if line.startswith("started")))
    started = [server, *psutil.Process(run.pid).children(recursive=True)]
    run.send_signal(how)
    run.wait()
    _gone, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []


@pytest.mark.usefixtures("prefect_server")
def test_a_run_with_another_server_starts_none() -> None:
    program = f"import signal; signal.pause = lambda: None\n{RUN}".replace("server_process.pid", "server_process")
    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "started None" in done.stdout, done.stderr


def test_a_release_that_is_ended_leaves_no_process_and_says_how_to_go_on(
    tiny_config: Path, without_a_server: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["run", str(tiny_config), "--artifacts", str(tmp_path / "artifacts")]
    run = subprocess.Popen(
        [sys.executable, "-m", "flows.commands", *arguments],
        cwd=ROOT,
        env=without_a_server,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.stdout is not None
    next(line for line in run.stdout if "resolve: done" in line)
    started = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    assert len(started) > 1
    run.send_signal(signal.SIGTERM)
    lines = run.stdout.read().splitlines()
    assert run.wait() == 1
    _gone, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    assert not [line for line in lines if "Crash detected" in line or "Traceback" in line]
    kept, remedy = (index for index, line in enumerate(lines) if line.startswith(("stopped: ", "to go on: ")))
    assert remedy == kept + 1
    assert lines[remedy] == f"to go on: taylor-release {' '.join(arguments)}"


def test_a_release_that_fails_has_logged_everything_before_its_server_ends(
    tiny_config: Path, without_a_server: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["run", str(tiny_config), "--artifacts", str(tmp_path / "artifacts"), "--set", "source.path=nowhere"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.commands", *arguments],
        cwd=ROOT,
        env=without_a_server,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert [line[:7] for line in done.stderr.splitlines() if line[:7] in ("error: ", "remedy:")] == [
        "error: ",
        "remedy:",
    ]
    assert "Error logging to API" not in done.stdout + done.stderr
