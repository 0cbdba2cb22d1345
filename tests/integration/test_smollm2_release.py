"""A release of SmolLM2-135M-Instruct from its PyPI package through the command line, with few and short prompts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taylor_ops.files import read_json, sha256_of_tree

ROOT = Path(__file__).parents[2]
NAME = "smollm2-135m-instruct-taylor"
SHORT = (
    "calibration.tokens=4096",
    # Wide, so that a busy machine does not decide what is tested here.
    "latency.tolerance=0.5",
    "latency.pairs=11",
    "latency.new_tokens=4",
    "latency.also=[]",
    "card.measured=false",
    "exactness.prompts=[{name: project, builtin: held_out, limit: 6}]",
    "exactness.new_tokens=12",
    "exactness.running_tokens=128",
    "audit.attacks=[rank_one]",
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.command_line", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def release(folder: Path) -> Path:
    settings = [part for setting in SHORT for part in ("--set", setting)]
    done = command("run", "release_configs/smollm2.yaml", "--artifacts", str(folder), *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("artifacts"))


def test_the_release_of_a_real_model_is_exact_and_protects_every_neuron(artifacts: Path) -> None:
    record = read_json(artifacts / NAME / "1.0.0" / "release.json")
    assert record["coverage"]["neurons_protected"] == record["coverage"]["neurons_total"] == 46_080
    assert record["exactness"]["project"]["bundle"]["prompts_equal"] == 6
    assert record["audit"]["rank_one"]["recovered_1pct"] > 0.999
    assert record["verified"]["tokens"] > 0


def test_a_release_made_in_another_folder_has_the_same_bytes(artifacts: Path, tmp_path: Path) -> None:
    assert sha256_of_tree(release(tmp_path / "other") / "hub") == sha256_of_tree(artifacts / "hub")


def test_the_published_bundle_verifies_until_a_byte_changes(artifacts: Path) -> None:
    published = artifacts / "hub" / "example-org" / "SmolLM2-135M-Instruct-Taylor" / "1.0.0"
    assert command("verify", str(published)).returncode == 0
    assert sha256_of_tree(published) == sha256_of_tree(artifacts / NAME / "1.0.0" / "bundle")
    code = published / "taylor_mlp.py"
    code.write_bytes(code.read_bytes() + b"\n")
    refused = command("verify", str(published))
    assert refused.returncode == 1
    assert "taylor_mlp.py does not have the bytes" in refused.stderr
