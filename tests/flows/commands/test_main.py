"""The command line: exit statuses, one line of cause and one of remedy, and no traceback that nobody asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flows.commands.main import COMMANDS
from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.config import exactness
from taylor_ops.config_file.schema import schema_text
from tests.support.commands import called_here
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import write_tiny_config
from tests.taylor_ops.conftest import sample

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "release_configs").glob("*.yaml"))
GOOD = """\
name: tiny
version: 1.0.0
source: {kind: folder, path: tiny}
card: {license: mit}
publish: {repo_id: owner/tiny-taylor}
"""
FIVE_MISTAKES = """\
name: Tiny Model
version: 1.0
source: {kind: folder, path: tiny}
latency:
  target_slowdown: fast
  pairs: 1
card: {licence: mit, license: mit}
publish: {repo_id: owner/tiny-taylor}
"""


def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line with these arguments, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flows.commands", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def refused(
    *arguments: str | Path, status: int = 2, by: Callable[..., subprocess.CompletedProcess[str]] = called_here
) -> tuple[str, str]:
    """Cause and remedy of a command that is refused with `status`."""
    done = by(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    cause, remedy = done.stderr.splitlines()
    assert cause.startswith("error: ")
    assert remedy.startswith("remedy: ")
    return cause, remedy


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD, encoding="utf-8")
    return tmp_path / "good.yaml"


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    (tmp_path / "mistaken.yaml").write_text(FIVE_MISTAKES, encoding="utf-8")
    return tmp_path / "mistaken.yaml"


# check


def test_configs_in_order_are_counted_with_status_0(config: Path) -> None:
    (config.parent / "tiny").mkdir()
    done = called("check", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 config in order\n", "")


def test_a_source_and_texts_that_are_not_here_are_named_with_file_and_line_and_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "texts.yaml"
    texts = "exactness: {prompts: [{name: a, file: a.txt}, {name: b, dataset: {folder: b, split: test}}]}\n"
    path.write_text(GOOD + texts, encoding="utf-8")
    done = called_here("check", path)
    assert (done.returncode, done.stdout) == (0, "1 config in order\n")
    assert done.stderr.splitlines() == [
        f"{path}:3: source.path: there is no folder {tmp_path}/tiny on this machine: `run` needs it",
        f"{path}:6: exactness.prompts.0.file: there is no file {tmp_path}/a.txt on this machine: `run` needs it",
        f"{path}:6: exactness.prompts.1.dataset.folder: there is no folder {tmp_path}/b on this machine: "
        "`run` needs it",
    ]
    for folder in ("tiny", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    assert called_here("check", path).stderr == ""


def test_a_task_that_is_not_here_is_named_and_without_lm_eval_it_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks.yaml"
    (tmp_path / "tiny").mkdir()
    path.write_text(GOOD + "exactness: {tasks: [{file: sums.yaml}]}\n", encoding="utf-8")
    done = called_here("check", path)
    assert done.returncode == 0
    told = f"{path}:6: exactness.tasks.0.file: there is no file {tmp_path}/sums.yaml on this machine: `run` needs it\n"
    assert done.stderr == told
    monkeypatch.setattr(exactness, "find_spec", lambda _name: None)
    done = called_here("check", path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:6: exactness.tasks: ")
    assert "pip install 'taylor-release[eval]'" in done.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{kind: gguf, file: a.gguf}", "source.file: there is no file FOLDER/a.gguf on this machine"),
        ("{kind: gguf, file: a, package: no_such_one}", "source.package: there is no Python package no_such_one"),
    ],
)
def test_a_gguf_file_or_its_package_that_is_not_here_is_named(tmp_path: Path, source: str, told: str) -> None:
    path = tmp_path / "gguf.yaml"
    path.write_text(GOOD.replace("{kind: folder, path: tiny}", source), encoding="utf-8")
    done = called_here("check", path)
    assert done.returncode == 0
    assert told.replace("FOLDER", str(tmp_path)) in done.stderr


def test_the_shipped_configs_are_in_order() -> None:
    done = called_here("check", *SHIPPED)
    assert (done.returncode, done.stdout) == (0, f"{len(SHIPPED)} configs in order\n")


def test_five_mistakes_are_five_lines_with_file_and_line_and_status_2(mistaken: Path) -> None:
    done = called_here("check", mistaken)
    assert done.returncode == 2
    assert done.stdout == ""
    places = [line.split(": ")[:2] for line in done.stderr.splitlines()]
    assert places == [
        [f"{mistaken}:1", "name"],
        [f"{mistaken}:2", "version"],
        [f"{mistaken}:5", "latency.target_slowdown"],
        [f"{mistaken}:6", "latency.pairs"],
        [f"{mistaken}:7", "card.licence"],
    ]


def test_mistakes_of_all_configs_are_told_at_once(config: Path, mistaken: Path) -> None:
    (config.parent / "tiny").mkdir()
    done = called_here("check", mistaken, config, config.parent / "missing.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 6
    assert done.stderr.splitlines()[-1].startswith(f"{config.parent / 'missing.yaml'}: cannot be read")


# schema


def test_the_schema_is_json_and_the_one_that_editors_are_pointed_to() -> None:
    done = called_here("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["title"] == "Release config"
    assert done.stdout == schema_text()
    assert done.stdout == (ROOT / "release_configs" / "release-config.schema.json").read_text(encoding="utf-8")


# verify and audit


def test_a_folder_that_is_no_bundle_is_refused_in_two_lines_with_status_2(tmp_path: Path) -> None:
    cause, remedy = refused("verify", tmp_path, by=called)
    assert str(tmp_path / MANIFEST) in cause
    assert "folder of a bundle" in remedy


def test_a_bundle_with_a_changed_file_is_rejected_in_two_lines_with_status_1(tmp_path: Path) -> None:
    manifest = {"format": 1, "files": {"README.md": "0" * 64}, "exactness": {"continuations": []}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "README.md").write_text("changed", encoding="utf-8")
    cause, _remedy = refused("verify", tmp_path, status=1)
    assert str(tmp_path / "README.md") in cause


def test_a_folder_that_is_no_bundle_cannot_be_audited(tmp_path: Path) -> None:
    cause, _remedy = refused("audit", tmp_path, "--original", tmp_path)
    assert f"{tmp_path} is not the folder of a bundle" in cause


def test_a_model_that_was_never_converted_cannot_be_audited(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "plain")
    cause, _remedy = refused("audit", folder, "--original", folder)
    assert str(folder) in cause


def test_an_original_that_is_not_there_is_named(tmp_path: Path) -> None:
    taylor_mlp = {"basis": "chebyshev", "layers": {}}
    config = {"model_type": "taylor_llama", "hidden_act": "silu", "taylor_mlp": taylor_mlp}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    cause, _remedy = refused("audit", tmp_path, "--original", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in cause


def test_an_audit_prints_a_table_or_its_record_as_json(tmp_path: Path) -> None:
    released = sample(tmp_path, "llama")
    only = ("audit", released.converted, "--original", released.original, "--attack", "rank_one")
    done = called(*only, "--attack", "ratios", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [(attack["attack"], attack["recovered_1pct"]) for attack in record["attacks"]] == [
        ("rank_one", 1.0),
        ("ratios", 1.0),
    ]
    table = called_here(*only)
    assert table.returncode == 0
    assert "rank_one" in table.stdout
    assert "100 %" in table.stdout


def test_an_attack_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    cause, remedy = refused("audit", tmp_path, "--original", tmp_path, "--attack", "guessing")
    assert "attack `guessing` is not known" in cause
    assert "collapse, distillation, fine_tuning, least_squares, lora, rank_one, ratios, warm_distillation" in remedy


# run


def test_a_setting_without_a_value_is_refused_before_anything_is_written(config: Path, tmp_path: Path) -> None:
    cause, remedy = refused("run", config, "--artifacts", tmp_path / "artifacts", "--set", "latency.pairs")
    assert "--set latency.pairs: no value given" in cause
    assert "key=value" in remedy
    assert not (tmp_path / "artifacts").exists()


def test_a_run_of_a_mistaken_config_tells_every_mistake_before_anything_is_written(
    mistaken: Path, tmp_path: Path
) -> None:
    done = called_here("run", mistaken, "--artifacts", tmp_path / "artifacts", "--set", "seed=x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    told = done.stderr
    assert [told.count(f"{mistaken}:{line}: ") for line in (1, 2, 5, 6, 7)] == [1] * 5
    assert told.count("--set seed: ") == 1
    assert not (tmp_path / "artifacts").exists()


# How it is called


@pytest.mark.parametrize(
    "arguments",
    [["publish-everything"], ["check"], ["verify"], ["check", "--strict"], ["--verbose", "check"], ["schema", "extra"]],
)
def test_a_command_that_is_called_wrongly_ends_with_status_2_and_says_what_is_wrong(arguments: list[str]) -> None:
    done = called_here(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "--debug" not in done.stderr
    assert done.stderr.strip()


def test_without_a_command_the_commands_are_listed() -> None:
    done = called_here()
    told = done.stdout + done.stderr
    assert done.returncode in (0, 2)
    assert "Traceback" not in told
    assert all(command in told for command in ("check", "run", "verify", "audit", "schema"))


def test_help_is_no_error() -> None:
    done = called_here("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(command in done.stdout for command in ("check", "run", "verify", "audit", "schema"))


def test_a_traceback_is_shown_before_the_two_lines_to_whoever_asks_for_it(tmp_path: Path) -> None:
    done = called("--debug", "verify", tmp_path)
    assert done.returncode == 2
    *traceback, cause, remedy = done.stderr.splitlines()
    assert any(line.startswith("Traceback") for line in traceback)
    assert cause.startswith("error: ")
    assert remedy.startswith("remedy: ")


def test_plan_estimates_a_release_and_writes_nothing(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    # The clock is real here: MLPs so wide that however noisy the machine, no bundle is taken to be as fast.
    config = write_tiny_config(tmp_path / "wide.yaml", save_tiny_model(tmp_path / "wide", intermediate_size=1024))
    reached: list[float] = []
    for target in ("50", "1.01"):
        cause, remedy = refused("plan", config, "--artifacts", artifacts, "--set", f"latency.target_slowdown={target}")
        assert f"target slowdown {target} cannot be reached" in cause
        least, most = map(float, re.findall(r"about (\S+) to (\S+) can", cause)[0])
        assert 1.01 < least < most < 50
        reached = [least, most]
        assert all(key in remedy for key in ("latency.target_slowdown", "tolerance", "range_margin", "max_order"))
    done = called_here("plan", config, "--artifacts", artifacts, "--set", f"latency.target_slowdown={sum(reached) / 2}")
    assert done.returncode == 0, done.stderr
    assert "slowdowns within reach" in done.stdout
    assert "validate" in done.stdout
    assert not artifacts.exists()


def test_calibrate_needs_a_bundle_and_its_original(tmp_path: Path, tiny_llama: Path) -> None:
    cause, _ = refused("calibrate", tiny_llama, "--original", tmp_path / "missing")
    assert "does not exist" in cause
    cause, _ = refused("calibrate", tiny_llama, "--original", tiny_llama)
    assert "taylor_release.json cannot be read" in cause


def test_calibrate_knows_its_devices(tiny_llama: Path) -> None:
    cause, remedy = refused("calibrate", tiny_llama, "--original", tiny_llama, "--device", "gpu")
    assert cause == "error: device `gpu` is not known"
    assert "cuda:N" in remedy


# init


def test_a_first_config_is_written_once_and_is_in_order(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    output = tmp_path / "first.yaml"
    done = called_here("init", model, "-o", output, "--no-probe")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output} is written: look through it, then `taylor-release plan {output}`\n"
    assert called_here("check", output).stdout == "1 config in order\n"
    text = output.read_text("utf-8")
    cause, _remedy = refused("init", model, "-o", output, "--no-probe")
    assert f"{output} exists already and is not overwritten" in cause
    assert output.read_text("utf-8") == text


def test_without_a_file_the_first_config_is_printed(tmp_path: Path) -> None:
    done = called_here("init", save_tiny_model(tmp_path / "model"), "--no-probe")
    assert done.returncode == 0, done.stderr
    (tmp_path / "printed.yaml").write_text(done.stdout, encoding="utf-8")
    assert called_here("check", tmp_path / "printed.yaml").returncode == 0


def test_what_cannot_be_written_or_is_no_model_is_refused_in_two_lines(tmp_path: Path) -> None:
    cause, remedy = refused("init", tmp_path / "nowhere", "--no-probe")
    assert "is no folder, no GGUF file and no OWNER/NAME on the Hub" in cause
    model = save_tiny_model(tmp_path / "model")
    cause, remedy = refused("init", model, "-o", tmp_path / "missing" / "first.yaml", "--no-probe")
    assert "cannot be written: No such file or directory" in cause
    assert "a folder that exists" in remedy


# Version, completion, groups


def test_the_version_is_that_of_the_package() -> None:
    done = called_here("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"taylor-release {version('taylor-release')}\n", "")


def test_the_help_shows_the_commands_in_groups_in_the_order_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = called_here("--help").stdout
    places = [text.index(f" {heading} ─") for heading in ("Make", "Inspect", "Operate", "Copies")]
    assert places == sorted(places)
    shown = [line.split()[1] for line in text.splitlines() if line.startswith("│ ") and not line.startswith("│  ")]
    assert [name for name in shown if not name.startswith("--")] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_what_each_value_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = called_here(name, "--help")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].strip().startswith(f"Usage: taylor-release {name}")
    options = done.stdout.partition("─ Options ")[2]
    assert not re.search(r"<(bool|path|str|int|float)>", options), options


def test_a_shell_is_told_the_commands_that_begin_like_that() -> None:
    asked = {"COMP_WORDS": "taylor-release ver", "COMP_CWORD": "1", "_TAYLOR_RELEASE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.commands"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["verify"])
