"""A release for one recipient, then for another: what is made again, what is traced, and where the key is not."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

from flows.run.release_run import R, ReleaseRun, Work
from flows.tasks import proof, publication
from taylor_ops.bundle.record import BundleRecord
from taylor_ops.config_file.read import read
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.evidence.key import read_key
from taylor_ops.evidence.recipients import Recipient
from taylor_ops.evidence.trace import trace
from taylor_ops.releases.gates import gates
from taylor_ops.source.resolve import resolve
from taylor_ops.stages import Stage
from taylor_ops.storage.artifacts import Artifacts
from taylor_ops.storage.files import read_json, sha256_of_tree
from tests.flows.commands.test_main import refused
from tests.support import release_example as example
from tests.support.evidence_example import LARGER
from tests.support.keyed import key_of
from tests.support.released import released
from tests.support.task_example import QUESTIONS
from tests.support.task_example import written as written_task
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import write_tiny_config
from tests.taylor_ops.conftest import sample, silent

SECRET = "correct-horse-battery-staple-9f2c"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "owner.key"
    path.write_text(SECRET + "\n")
    return path


def write_marked_config(path: Path, model: Path, key: Path) -> Path:
    """Write the config of a small release for acme."""
    with write_tiny_config(path, model).open("a", encoding="utf-8") as stream:
        stream.write(f"evidence: {{recipient: acme, key: {key.name}}}\n")
    return path


@pytest.mark.usefixtures("prefect_server", "simulated_clock", "consumer_in_this_process")
def test_one_conversion_serves_two_recipients_and_the_key_is_in_nothing_that_is_written(
    key: Path, tmp_path: Path
) -> None:
    original = save_tiny_model(tmp_path / "original", **LARGER)
    tiny_config = write_marked_config(tmp_path / "tiny.yaml", original, key)
    artifacts, target = tmp_path / "a", {"latency.target_slowdown": "10"}
    asked_too = {"exactness.tasks": f"[{{file: {written_task(tmp_path).name}, difference: 0.1}}]"}
    first = released(tiny_config, artifacts, {"publish.repo_id": "org/for-acme"} | target | asked_too)
    assert [(task.task, task.documents, task.allowed) for task in first.tasks] == [("choice", QUESTIONS, 0.1)]
    assert "task, choice" in [gate.gate for gate in gates(first)]
    assert "| choice | acc_norm | " in (artifacts / "hub/org/for-acme/1.0.0/README.md").read_text(encoding="utf-8")
    assert first.evidence is not None
    assert first.evidence.recipient == "acme"
    overrides = {"evidence.recipient": "beta", "publish.repo_id": "org/for-beta"} | target
    second = released(tiny_config, artifacts, overrides)
    made = {name for name, cost in second.stages.items() if not cost.cached}
    assert {"resolve", "capture", "calibrate", "convert"}.isdisjoint(made)
    assert {"mark", "validate"} <= made
    assert "tasks" not in second.stages
    assert "lm-eval" not in (artifacts / "hub/org/for-beta/1.0.0/README.md").read_text(encoding="utf-8")
    asked, secret = [Recipient(name, "1.0.0") for name in ("acme", "beta", "gamma")], read_key(str(key))
    for name in ("acme", "beta"):
        copy = artifacts / "hub" / "org" / f"for-{name}" / "1.0.0"
        assert [one.recipient for one in trace(copy, original, secret, asked, silent).named] == [name]
        assert read_json(copy / "taylor_release.json")["evidence"]["marked"] is True
        assert "This copy is marked" in (copy / "README.md").read_text(encoding="utf-8")
        told = b"".join(path.read_bytes() for path in copy.iterdir() if path.suffix in (".json", ".md", ".py"))
        assert b"owner.key" not in told
        assert b"acme" not in told.replace(b"for-acme", b"")
        assert b"beta" not in told.replace(b"for-beta", b"")
    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition(":///")[2])
    assert database.is_file()
    written = [path for place in (artifacts, database.parent) for path in place.rglob("*")]
    assert [path for path in written if path.is_file() and SECRET.encode() in path.read_bytes()] == []


def test_another_version_or_recipient_is_judged_anew(tiny_config: Path, tmp_path: Path, key: Path) -> None:
    def keys(**changed: str) -> list[str]:
        settings = {"evidence": f"{{recipient: acme, key: {key}}}"} | changed
        loaded, found = read(tiny_config, settings), (example.source(), example.captured(), example.converted())
        audited = key_of(proof.audit, loaded, found[0], found[2], example.exactness())
        return [key_of(proof.validate, loaded, *found), audited]

    assert keys() == keys()
    for changed in ({"version": "1.1.0"}, {"evidence": f"{{recipient: beta, key: {key}}}"}):
        assert all(before != after for before, after in zip(keys(), keys(**changed), strict=True))


class Unremembered(ReleaseRun):
    """A release whose stages do their work and leave no record of it."""

    def perform(
        self, stage: Stage[R], inputs: Mapping[str, Any], work: Work[R], *_given: object, **_named: object
    ) -> R:
        return work(self.place.stage(stage.name), silent)


def test_the_key_in_a_file_of_the_bundle_is_refused_by_the_leak_gate(key: Path, tmp_path: Path) -> None:
    secret = "5b0c3e7f9a1d2846" * 4
    key.write_text(secret + "\n")
    tiny = sample(tmp_path, "llama")
    config = write_marked_config(tmp_path / "tiny.yaml", tiny.original, key)
    one = Unremembered(read(config), Artifacts(tmp_path / "a"))
    source = resolve(one.config.source, tmp_path / "resolved", silent)
    bundle = shutil.copytree(tiny.converted, one.results.bundle)

    def look() -> None:
        record = BundleRecord(folder="bundle", bytes=1, files=sha256_of_tree(bundle))
        publication.refuse_leaks.fn(one, source, tiny.record, record, None)

    look()
    (bundle / "README.md").write_text(f"made with {secret}\n")
    with pytest.raises(GateRejected, match=r"README\.md gives away a token that is set on this machine") as caught:
        look()
    assert secret not in caught.value.cause


@pytest.mark.usefixtures("prefect_server", "simulated_clock")
def test_a_key_that_is_not_there_ends_a_release_before_any_work(tiny_config: Path, tmp_path: Path) -> None:
    overrides = {"evidence": "{recipient: acme, key: nowhere.key}"}
    with pytest.raises(BadInput, match=r"nowhere\.key, the key of the evidence, cannot be read"):
        released(tiny_config, tmp_path / "a", overrides)
    assert not (tmp_path / "a" / "tiny" / "stages" / "capture.json").exists()


def test_the_commands_refuse_what_they_cannot_work_with(key: Path, tmp_path: Path) -> None:
    (tmp_path / "recipients").write_text("acme 1.0.0\n")
    asked = ("--original", tmp_path, "--recipients", tmp_path / "recipients")
    assert "does not exist" in refused("trace", tmp_path / "gone", "--key", key, *asked)[0]
    cause, _ = refused("mark", tmp_path, "--recipient", "acme", "--key", key, "--to", tmp_path / "copy")
    assert "taylor_release.json cannot be read" in cause
