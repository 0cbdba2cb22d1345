"""Releases as people operate them: real Prefect server, process work pool, worker and database, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from taylor_ops.files import read_json
from tests.flows.test_workflows import step as workflow_step
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
        """Run `prefect` to its end."""
        return self._ended([PREFECT, *arguments])

    def release(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `taylor-release` to its end."""
        return self._ended([sys.executable, "-m", "flows.command_line", *map(str, arguments)])

    def _ended(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def waiting(self, config: Path, artifacts: Path, summary: Path) -> tuple[subprocess.Popen[str], str]:
        """Run the step of the workflow that releases `config`; returns it and the run when that waits for approval."""
        step = workflow_step("release", "on-server", "Release")["run"]
        program = f"{sys.executable} -m flows.command_line"
        script = step.replace(".venv/bin/taylor-release", program) + f" --artifacts {artifacts}"
        files = {"CONFIG": str(config), "DRY_RUN": "", "GITHUB_STEP_SUMMARY": str(summary), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            ["bash", "-eo", "pipefail", "-c", script],
            env=self.environment | files,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if ": Suspended" in line:
                return process, line.split()[1].rstrip(":")
        raise AssertionError("".join(said))

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs that the server knows."""
        return self.asked("flow_runs/filter", {"limit": 200})

    def asked(self, what: str, question: dict[str, Any]) -> Any:
        """What the server answers to a question of its API."""
        answer = urllib3.PoolManager().request("POST", f"{self.environment['PREFECT_API_URL']}/{what}", json=question)
        assert answer.status == 200, answer.data
        return answer.json()

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
        deployed = running.release("deploy", "--gpu-slots", "2")
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        running.start("worker", "start", "--pool", "local")
        yield running
    finally:
        running.stop()


def write_config(folder: Path, original: Path, **publish: Any) -> Path:
    """Write the config of a small release into a folder."""
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
        "publish": {"repo_id": "org/tiny", **publish},
    }
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of a small release that asks for approval, in `configs`."""
    folder = tmp_path_factory.mktemp("place")
    write_config(folder / "configs", save_tiny_model(folder / "original"), approval=True)
    return folder


def test_there_is_one_deployment_for_each_config_and_setting_up_again_changes_nothing(
    prefect: Prefect, place: Path
) -> None:
    configs = {path.stem for path in (ROOT / "release_configs").glob("*.yaml")}
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {entry["name"] for entry in declared} == configs
    assert {entry["parameters"]["config"] for entry in declared} == {f"release_configs/{name}.yaml" for name in configs}
    before = {found["name"]: found["id"] for found in prefect.asked("deployments/filter", {})}
    assert before.keys() == configs

    # By prefect.yaml, then by the command, which leaves the two slots that there are.
    assert prefect.call("--no-prompt", "deploy", "--all").returncode == 0
    again = prefect.release("deploy", "--gpu-slots", "1", "--configs", place / "configs")
    assert "work pool local: there, of type process\nconcurrency limit gpu: there, 2 at once\n" in again.stdout
    after = {found["name"]: found["id"] for found in prefect.asked("deployments/filter", {})}
    assert after.keys() == configs | {"tiny"}
    assert {name: after[name] for name in before} == before


def test_wrong_parameters_and_broken_configs_are_refused_with_the_reason_before_a_run_is_created(
    prefect: Prefect, place: Path, tmp_path: Path
) -> None:
    before = len(prefect.runs())
    wrong = ["deployment", "run", "release/smollm2", "-p", 'overrides={"latency": {"target_slowdown": "fast"}}']
    refused = prefect.call(*wrong)
    assert refused.returncode == 1
    told = " ".join((refused.stdout + refused.stderr).split())
    assert "latency.target_slowdown" in told
    assert "Failure reason: 'fast' is not valid" in told

    config = write_config(tmp_path / "configs", place / "original")
    setting = prefect.release("submit", config, "--set", "latency.target_slowdown=fast")
    assert (setting.returncode, "latency.target_slowdown" in setting.stderr) == (2, True)
    missing = prefect.release("submit", config.rename(config.with_name("unknown.yaml")))
    assert (missing.returncode, "no deployment release/unknown" in missing.stderr) == (2, True)

    (tmp_path / "configs" / "broken.yaml").write_text("name: Tiny\n", encoding="utf-8")
    for command in (["submit", tmp_path / "configs" / "broken.yaml"], ["deploy", "--configs", tmp_path / "configs"]):
        broken = prefect.release(*command)
        assert (broken.returncode, "broken.yaml:1: name" in broken.stderr) == (2, True), broken.stderr
    assert len(prefect.runs()) == before
    assert "unknown" not in {found["name"] for found in prefect.asked("deployments/filter", {})}


def test_a_release_waits_for_approval_and_publishes_nothing_unless_it_is_given(
    prefect: Prefect, place: Path, tmp_path: Path
) -> None:
    config, artifacts, hub = place / "configs" / "tiny.yaml", place / "artifacts", place / "artifacts" / "hub"
    step, run = prefect.waiting(config, artifacts, tmp_path / "rejected.md")
    assert not hub.exists()
    (shown,) = prefect.asked("artifacts/filter", {"artifacts": {"key": {"any_": ["tiny-approval"]}}})
    assert all(gate in shown["data"] for gate in ("| slowdown |", "| exactness, project |", "| audit, rank_one |"))
    unsigned = prefect.release("approve", run, "--by", "Kim", "--comment", "")
    assert (unsigned.returncode, "'comment'" in unsigned.stderr) == (2, True), unsigned.stderr
    assert prefect.release("reject", run, "--by", "Kim", "--comment", "wait | for legal").returncode == 0
    assert step.wait() == 1
    assert "rejected by Kim: wait | for legal" in (tmp_path / "rejected.md").read_text("utf-8")
    assert not hub.exists()
    assert not (artifacts / "tiny" / "1.0.0").exists()
    answered = prefect.release("approve", run, "--by", "Kim", "--comment", "too late")
    assert (answered.returncode, "waits for no answer" in answered.stderr) == (2, True), answered.stderr

    step, run = prefect.waiting(config, artifacts, tmp_path / "approved.md")
    assert not hub.exists()
    assert prefect.release("approve", run, "--by", "Ada", "--comment", "as agreed").returncode == 0
    assert step.wait() == 0
    record = read_json(artifacts / "tiny" / "1.0.0" / "release.json")
    manifest = read_json(hub / "org" / "tiny" / "1.0.0" / "taylor_release.json")
    assert record["approval"] == manifest["approval"] == {"by": "Ada", "comment": "as agreed"}
    made_before = ("resolve", "capture", "calibrate", "transfer", "convert", "validate", "audit")
    assert all(record["stages"][stage]["cached"] for stage in made_before)
    assert "| slowdown | 1.7 within 50 % |" in (tmp_path / "approved.md").read_text("utf-8")


def test_a_deployment_run_with_other_parameters_releases_what_they_say_and_repeats_nothing(
    prefect: Prefect, place: Path
) -> None:
    overrides = 'overrides={"version": "1.0.1", "publish": {"approval": false}}'
    command = ["deployment", "run", "release/tiny", "--watch", "-p", f"artifacts={place / 'artifacts'}"]
    done = prefect.call(*command, "-p", overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(place / "artifacts" / "tiny" / "1.0.1" / "release.json")
    assert (place / "artifacts" / record["published"]["path"] / "config.json").is_file()
    assert record["approval"] is None
    assert record["stages"]["convert"]["cached"]
    assert "tiny 1.0.1" in {run["name"] for run in prefect.runs()}
    # The server writes events down some seconds after it got them: these are of the runs before.
    wanted = {"filter": {"event": {"name": ["release.published", "release.rejected"]}}, "limit": 50}
    events = prefect.asked("events/filter", wanted)["events"]
    told = {(event["event"], event["resource"]["prefect.resource.id"]) for event in events}
    assert {(f"release.{end}", "taylor-release.tiny.1.0.0") for end in ("published", "rejected")} <= told
