"""A temporary Prefect server does not outlive the run that started it, however that run ends."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from flows.run.prefect_database import template_in
from taylor_ops.storage.files import sha256_of
from tests.support.dependents import end_with_this_process
from tests.support.killed import STAGES

ROOT = Path(__file__).parents[3]
RUN = """
import signal, sys
# A shell without job control has its background processes ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from prefect import get_client
from flows.run.temporary_server import start_temporary_server
server = start_temporary_server()
if server is not None:
    server.wait()
with get_client(sync_client=True) as client:
    client.read_flow_runs()
print("loaded", "prefect.server.api.server" in sys.modules, flush=True)
print("started", server and server.process.pid, flush=True)
signal.pause()
"""
# One process loads what a release and its server need, and forks a run for the name of every stage that it is to wait
# in. Its server is a fork as well: that the program of its own ends with its run is tested above, for each signal.
RUNS = """
import os, runpy, signal, subprocess, sys
# A shell without job control has its background processes ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from types import SimpleNamespace
import prefect.server.api.server, uvicorn.main
from prefect.context import refresh_global_settings_context
from flows.commands.main import main
from flows.run import temporary_server
from tests.support import halted_release
def begun(command, **given):
    def serve():
        # With the other files that a program would not get goes the one by which Popen learns that it runs.
        os.closerange(3, 1024)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(given["env"])
        refresh_global_settings_context()
        sys.argv = ["uvicorn", *command[3:]]
        try:
            runpy.run_module("uvicorn", run_name="__main__")
        finally:
            os._exit(0)
    if command[1:3] != ["-m", "uvicorn"]:
        return subprocess.Popen(command, **given)
    server = subprocess.Popen(command, preexec_fn=serve, **given)
    print("serves", server.pid, flush=True)
    return server
temporary_server.subprocess = SimpleNamespace(
    Popen=begun, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
)
def halt(_artifacts, stage):
    if stage == wanted:
        print("waits", os.getpid(), flush=True)
        signal.pause()
halted_release.halt = halt
halted_release.watch(Path(sys.argv[-1]))
for line in sys.stdin:
    wanted = line.strip()
    run = os.fork()
    if run == 0:
        main()
    print("ended", os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]), flush=True)
"""


@pytest.fixture
def without_a_server(prefect_database: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a run that finds an empty database in Prefect's home, and no server."""
    template = template_in(tmp_path)
    template.parent.mkdir()
    shutil.copyfile(prefect_database, template)
    environment = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    return environment | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_a_run_that_is_ended_from_outside(
    without_a_server: dict[str, str], how: signal.Signals
) -> None:
    environment = without_a_server | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True)
    end_with_this_process(run)
    assert run.stdout is not None
    server = psutil.Process(next(int(line.split()[1]) for line in run.stdout if line.startswith("started")))
    folder = Path(server.environ()["PREFECT_API_DATABASE_CONNECTION_URL"].removeprefix("sqlite+aiosqlite:///")).parent
    assert {"prefect.db", "server.log"} <= {path.name for path in folder.iterdir()}
    started = [server, *psutil.Process(run.pid).children(recursive=True)]
    run.send_signal(how)
    run.wait()
    _gone, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    assert not folder.exists()


def test_a_server_is_a_process_of_its_own_and_leaves_the_database_of_another_of_its_home_alone(
    without_a_server: dict[str, str], prefect_database: Path, tmp_path: Path
) -> None:
    taken = shutil.copyfile(prefect_database, tmp_path / "prefect.db")
    program = f"import signal; signal.pause = lambda: None\n{RUN}"
    with closing(sqlite3.connect(taken, isolation_level=None)) as other:
        # As a server holds it that writes something down.
        other.execute("begin exclusive")
        done = subprocess.run(
            [sys.executable, "-c", program], env=without_a_server, cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "loaded False" in done.stdout, "the run has loaded its server into its own process"
    assert "locked" not in done.stderr
    assert sha256_of(taken) == sha256_of(prefect_database)


def test_a_server_that_ends_before_its_run_says_where_its_log_is(without_a_server: dict[str, str]) -> None:
    program = f"import signal; signal.pause = lambda: (server.process.kill(), server.process.wait())\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", program], env=without_a_server, cwd=ROOT, capture_output=True, text=True, check=True
    )
    (log,) = re.findall(r"the temporary Prefect server ended with status -9: its log is (.*)", done.stderr)
    assert Path(log).is_file()
    shutil.rmtree(Path(log).parent)


@pytest.mark.usefixtures("prefect_server")
def test_a_run_with_another_server_starts_none() -> None:
    program = f"import signal; signal.pause = lambda: None\n{RUN}"
    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "started None" in done.stdout, done.stderr


def test_a_server_that_cannot_start_is_said_to_have_ended(without_a_server: dict[str, str]) -> None:
    environment = without_a_server | {"PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////dev/null/prefect.db"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (log,) = re.findall(r"WorkFailed: the temporary Prefect server ended with status 3: its log is (.*)", done.stderr)
    assert "Application startup failed" in Path(log).read_text("utf-8")
    assert "Application startup failed" not in done.stderr
    shutil.rmtree(Path(log).parent)


def test_a_release_that_is_ended_in_any_stage_leaves_no_process_and_goes_on_when_it_is_run_again(
    tiny_config: Path, without_a_server: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["run", str(tiny_config), "--artifacts", str(tmp_path / "artifacts")]
    runs = subprocess.Popen(
        [sys.executable, "-c", RUNS, *arguments],
        cwd=ROOT,
        env=without_a_server,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end_with_this_process(runs)
    assert runs.stdin is not None
    assert runs.stdout is not None

    def said_until(word: str) -> list[str]:
        """The lines of a run up to one that begins with the word, which is the last."""
        lines: list[str] = []
        while not lines or not lines[-1].startswith(word):
            lines.append(runs.stdout.readline())
            assert not lines[-1].startswith("ended") or word == "ended", "".join(lines)
            assert lines[-1], "".join(lines)
        return lines

    endings = itertools.cycle([signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    for stage, ending in zip(STAGES, endings, strict=False):
        print(stage, file=runs.stdin, flush=True)
        lines = said_until("waits")
        run = psutil.Process(int(lines[-1].split()[1]))
        started = [run, *run.children(recursive=True)]
        (server,) = (int(line.split()[1]) for line in lines if line.startswith("serves"))
        assert server in {one.pid for one in started}, "the run has a server of its own"
        run.send_signal(ending)
        lines = said_until("ended")
        assert lines[-1] == "ended 1\n"
        _gone, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []
        assert not [line for line in lines if "Crash" in line or "Traceback" in line]
        kept, remedy = (index for index, line in enumerate(lines) if line.startswith(("stopped: ", "to go on: ")))
        assert remedy == kept + 1
        assert lines[remedy] == f"to go on: taylor-release {' '.join(arguments)}\n"
    print("none", file=runs.stdin, flush=True)
    assert said_until("ended")[-1] == "ended 0\n"
    runs.stdin.close()
    assert runs.wait() == 0
    # Each stage waited before its work, and none did its work twice.
    finished = (tmp_path / "artifacts" / "finished").read_text(encoding="utf-8").split()
    assert finished == [stage for stage in STAGES if stage != "report"]


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
