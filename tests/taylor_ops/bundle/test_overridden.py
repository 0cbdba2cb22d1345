"""What a run had in place of what its file says stands in the manifest and on the card, and names nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taylor_ops.bundle.assemble import assemble, stated_overrides
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import read_manifest
from taylor_ops.config_file.read import read
from taylor_ops.stages import inputs_of_approve, inputs_of_assemble
from taylor_ops.storage.files import sha256_of_tree
from tests.support import release_example as example
from tests.support.config_example import VALID, written
from tests.taylor_ops.conftest import Sample

APPROVAL = {"publish.approval": {"file": True, "run": False}}


@pytest.fixture
def findings() -> Findings:
    return Findings(
        source=example.source(),
        converted=example.converted(),
        latency=example.latency(),
        exactness=example.exactness(),
        audit=example.audit(),
    )


def test_a_bundle_states_what_was_overridden_and_nothing_if_nothing_was(
    llama: Sample, findings: Findings, tmp_path: Path
) -> None:
    stated = {**APPROVAL, "source.path": {"run": "/home/somebody/model"}, "version": {"run": "1.2.0"}}
    folder = tmp_path / "bundle"
    given = (llama.converted, example.config(), example.document(), findings, folder)
    assemble(*given, overridden=stated)
    assert read_manifest(folder)["overridden"] == stated | {"source.path": {"run": "model"}}
    card = (folder / "README.md").read_text("utf-8")
    assert ".\n\nThe run had these values in place of those of its file:\n\n| key | file | run |" in card
    assert "| `publish.approval` | true | false |\n" in card
    assert '| `source.path` |  | "model" |\n| `version` |  | "1.2.0" |\n\n<details>' in card

    assemble(*given)
    assert "overridden" not in read_manifest(folder)
    assert "in place of those of its file" not in (folder / "README.md").read_text("utf-8")
    before = sha256_of_tree(folder)
    assemble(*given, overridden={})
    assert sha256_of_tree(folder) == before


def test_a_bundle_states_the_values_of_the_file_only_of_keys_that_guard_the_release(tmp_path: Path) -> None:
    guarded = (
        VALID
        + "  approval: true\n  signing: {key_file: k.pem}\nevidence: {recipient: acme, key: OWNER_KEY}\n"
        + "overridable: [publish.approval, latency.tolerance]\n"
    )
    settings = {
        "publish": "{approval: false, repo_id: owner/for-beta, signing: {key_file: /home/somebody/other.pem}}",
        "evidence": "{recipient: beta, strength: 0.1}",
        "execution.workers": "3",
        "latency": "{tolerance: 0.2, pairs: 9}",
    }
    loaded = read(written(tmp_path, guarded), settings)
    assert {"evidence.recipient", "publish.signing.key_file", "execution.workers"} <= loaded.overridden.keys()
    assert stated_overrides(loaded.overridden) == {
        "latency.pairs": {"run": 9},
        "latency.tolerance": {"file": 0.03, "run": 0.2},
        "publish.approval": {"file": True, "run": False},
        "publish.repo_id": {"run": "owner/for-beta"},
    }


@pytest.mark.parametrize("inputs_of", [inputs_of_approve, inputs_of_assemble])
def test_what_was_overridden_is_approved_and_assembled_anew_and_nothing_is_no_input(
    inputs_of: Callable[..., dict[str, Any]], findings: Findings
) -> None:
    given = (example.config(), findings, example.document(), None)
    assert inputs_of(*given, {}) == inputs_of(*given)
    assert "overridden" not in inputs_of(*given)
    assert inputs_of(*given, APPROVAL) == inputs_of(*given) | {"overridden": APPROVAL}
