"""The workflows of GitHub Actions: linted, pinned, without privileges; and their shell steps, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documented import documented

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROGRAMS = Path(sys.executable).parent


def workflow(name: str) -> dict[str, Any]:
    # YAML 1.1 takes the key `on` for true.
    document: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text("utf-8"))
    return {str(key): value for key, value in document.items()}


def step(name: str, job: str, title: str) -> dict[str, Any]:
    """The step of a job that has this title."""
    steps: list[dict[str, Any]] = workflow(name)["jobs"][job]["steps"]
    return next(one for one in steps if one.get("name") == title)


def run_step(found: dict[str, Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell step as a runner does, but with the programs of this environment."""
    script = found["run"].replace(".venv/bin/", f"{PROGRAMS}/")
    files = {name: str(folder / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | files | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose second commit changes one config, adds one, removes one, and touches other files."""
    folder = tmp_path / "repository"
    configs = folder / "release_configs"
    (configs / "old").mkdir(parents=True)
    text = (ROOT / "release_configs" / "phi.yaml").read_text("utf-8")
    for name in ("same", "changed", "removed"):
        (configs / f"{name}.yaml").write_text(text, "utf-8")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    (configs / "changed.yaml").write_text(text.replace("version: 1.0.0", "version: 1.1.0"), "utf-8")
    (configs / "added.yaml").write_text(text.replace("example-org/phi-2", "example-org/other"), "utf-8")
    (configs / "removed.yaml").unlink()
    (configs / "old" / "kept.yaml").write_text(text, "utf-8")
    (configs / "notes.txt").write_text("not a config", "utf-8")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a change")
    return git(folder, "rev-parse", "HEAD").strip()


def test_the_workflows_keep_to_the_schema_of_github() -> None:
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_security_linter_finds_nothing_in_the_workflows() -> None:
    command = [PROGRAMS / "zizmor", "--offline", "--persona", "pedantic", "--quiet", ROOT / ".github" / "workflows"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_by_a_commit_and_says_which_version_that_is() -> None:
    used = [line for path in WORKFLOWS for line in path.read_text("utf-8").splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not re.search(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_secrets_are_used_in_jobs_of_the_protected_environment_alone_and_never_for_a_pull_request() -> None:
    for path in WORKFLOWS:
        found = workflow(path.stem)
        assert found["permissions"] == {}
        with_secrets = {name for name, job in found["jobs"].items() if "secrets." in yaml.safe_dump(job)}
        assert all(found["jobs"][name]["environment"] == "release" for name in with_secrets)
        assert all(job["permissions"] == {"contents": "read"} for job in found["jobs"].values())
        # `on` is the key True.
        assert not with_secrets or "pull_request" not in found["True"]
        assert "pull_request_target" not in found["True"]


def test_every_config_can_be_chosen_by_hand() -> None:
    choices = workflow("release")["True"]["workflow_dispatch"]["inputs"]["config"]["options"]
    assert choices == sorted(f"release_configs/{path.name}" for path in (ROOT / "release_configs").glob("*.yaml"))


def test_a_push_releases_the_configs_that_are_new_or_changed_and_no_others(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD~1").strip()
    done = run_step(step("release", "configs", "Which configs changed"), repository, SINCE=before)
    assert done.returncode == 0, done.stderr
    given = (repository / "GITHUB_OUTPUT").read_text("utf-8")
    assert given == 'configs=["release_configs/added.yaml", "release_configs/changed.yaml"]\n'


def test_a_config_whose_common_part_changed_is_released_although_it_did_not_change_itself(repository: Path) -> None:
    common = repository / "release_configs" / "common"
    common.mkdir()
    text = (ROOT / "release_configs" / "phi.yaml").read_text("utf-8")
    (common / "phi.yaml").write_text(text, "utf-8")
    (common / "unused.yaml").write_text(text, "utf-8")
    (repository / "release_configs" / "family.yaml").write_text("extends: common/phi.yaml\nname: family\n", "utf-8")
    before = commit(repository)
    for path in common.iterdir():
        path.write_text(text.replace("version: 1.0.0", "version: 1.3.0"), "utf-8")
    commit(repository)
    done = run_step(step("release", "configs", "Which configs changed"), repository, SINCE=before)
    assert done.returncode == 0, done.stderr
    assert (repository / "GITHUB_OUTPUT").read_text("utf-8") == 'configs=["release_configs/family.yaml"]\n'
    done = run_step(step("ci", "plan", "What a merge releases"), repository, SINCE=before)
    assert "| family.yaml | family 1.3.0 |" in done.stdout + (repository / "GITHUB_STEP_SUMMARY").read_text("utf-8")


def test_a_push_whose_history_is_not_there_fails_and_releases_nothing(repository: Path) -> None:
    done = run_step(step("release", "configs", "Which configs changed"), repository, SINCE="0" * 40)
    assert done.returncode == 2
    assert "no such commit" in done.stderr
    assert not (repository / "GITHUB_OUTPUT").exists()


def test_a_pull_request_gets_a_table_of_what_its_merge_releases(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD~1").strip()
    done = run_step(step("ci", "plan", "What a merge releases"), repository, SINCE=before)
    assert done.returncode == 0, done.stderr
    told = (repository / "GITHUB_STEP_SUMMARY").read_text("utf-8")
    assert told == (repository / "plan.md").read_text("utf-8")
    assert told.startswith("A merge releases 2 models:\n")
    assert "| changed.yaml | phi-2-taylor 1.1.0 | microsoft/phi-2 at ef382358ec9e | float16 | 3 within 3 % |" in told
    assert "same.yaml" not in told


def test_a_broken_config_ends_the_plan_with_its_mistake(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD").strip()
    (repository / "release_configs" / "same.yaml").write_text("name: Same\n", "utf-8")
    commit(repository)
    done = run_step(step("ci", "plan", "What a merge releases"), repository, SINCE=before)
    assert done.returncode == 2
    assert "same.yaml:1: name" in done.stderr


def test_what_others_changed_on_main_meanwhile_is_no_change_of_a_branch(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "branch")
    (repository / "release_configs" / "same.yaml").write_text(
        (repository / "release_configs" / "changed.yaml").read_text("utf-8"), "utf-8"
    )
    commit(repository)
    git(repository, "checkout", "--quiet", "main")
    (repository / "release_configs" / "added.yaml").unlink()
    commit(repository)
    git(repository, "checkout", "--quiet", "branch")
    typed = documented("taylor-release changed").replace("taylor-release", ".venv/bin/taylor-release")
    done = run_step({"run": typed}, repository)
    assert done.returncode == 0, done.stderr
    assert "| same.yaml |" in done.stdout
    assert done.stdout.count(".yaml") == 1


def test_a_dry_run_says_what_would_be_released_and_asks_no_server(repository: Path) -> None:
    found = step("release", "on-server", "Release")
    unreachable = "http://127.0.0.1:9/api"
    done = run_step(
        found, repository, CONFIG="release_configs/same.yaml", DRY_RUN="--dry-run", PREFECT_API_URL=unreachable
    )
    assert done.returncode == 0, done.stderr
    assert "phi-2-taylor 1.0.0" in (repository / "GITHUB_STEP_SUMMARY").read_text("utf-8")


def test_a_release_without_a_server_fails_and_says_so(repository: Path) -> None:
    found = step("release", "on-server", "Release")
    done = run_step(
        found,
        repository,
        CONFIG="release_configs/same.yaml",
        DRY_RUN="",
        PREFECT_API_URL="http://127.0.0.1:9/api",
        PREFECT_CLIENT_MAX_RETRIES="0",
    )
    assert done.returncode == 2
    assert "no Prefect server answers" in done.stderr
