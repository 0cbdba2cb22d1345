"""Each attestation is valid by the schema of its own form, and a form that is published stays as it is."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from jsonschema import Draft202012Validator

from taylor_ops.attestations import bill_of_materials as bills
from taylor_ops.attestations.attest import BILL_FILE, FOLDER, GATES_FILE, PROVENANCE_FILE, attest
from taylor_ops.attestations.bill_of_materials import bill_of_materials, licence
from taylor_ops.attestations.statements import GATES
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import Calibration
from taylor_ops.leaks.texts import Machine, leak_in
from taylor_ops.storage.files import canonical_json, read_json, sha256_of_tree
from tests.support import release_example as example
from tests.support.bill_schema import bill_schema, read

FILES = {"README.md": "1" * 64, "model-00001-of-00001.safetensors": "2" * 64}
GATES_SCHEMA = json.loads((files("taylor_ops") / "data" / "gates-v1.schema.json").read_text(encoding="utf-8"))
DATA_SET = {"name": "openai/gsm8k", "config": "main", "split": "test", "revision": example.COMMIT}


def statements(**config: Any) -> dict[str, Any]:
    """What a manifest states, with other sections of its config."""
    stated = example.statements()
    stated["tools"] = {"taylor-release": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.20.0", "python": "3.11.9"}
    return stated | {"config": stated["config"] | config}


def attested(folder: Path, **config: Any) -> dict[str, Any]:
    """Each attestation of the example by its name."""
    attest(folder, statements(**config), FILES)
    names = (BILL_FILE, GATES_FILE, PROVENANCE_FILE)
    return {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in names}


def bill(**config: Any) -> dict[str, Any]:
    return json.loads(canonical_json(bill_of_materials(statements(**config), FILES)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [GATES_FILE, PROVENANCE_FILE])
def test_a_statement_is_one_of_in_toto(tmp_path: Path, name: str) -> None:
    document = attested(tmp_path)[name]
    # It refuses what the form does not know.
    parsed = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(document | {"more": 1}, statement_pb2.Statement())


def test_the_provenance_is_that_of_slsa(tmp_path: Path) -> None:
    predicate = attested(tmp_path)[PROVENANCE_FILE]["predicate"]
    parsed = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    assert parsed.build_definition.build_type
    assert parsed.run_details.builder.id
    assert {one.digest["sha256"] for one in parsed.build_definition.resolved_dependencies} == {"a" * 64, "b" * 64}
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(predicate | {"materials": []}, provenance_pb2.Provenance())


def test_the_gates_keep_to_their_schema(tmp_path: Path) -> None:
    predicate, schema = attested(tmp_path)[GATES_FILE]["predicate"], Draft202012Validator(GATES_SCHEMA)
    Draft202012Validator.check_schema(GATES_SCHEMA)
    assert GATES_SCHEMA["$id"] == GATES
    schema.validate(predicate)
    first = predicate["gates"][0]
    for wrong in (first | {"verdict": "perfect"}, first | {"from": "coverage"}, {"gate": "slowdown"}):
        assert not schema.is_valid(predicate | {"gates": [wrong]})


def test_scores_on_tasks_are_a_gate_in_the_same_form(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    attest(
        tmp_path / "with", statements() | {"exactness": example.statements(tasks=(example.task(),))["exactness"]}, FILES
    )
    predicate = read_json(tmp_path / "with" / GATES_FILE)["predicate"]
    Draft202012Validator(GATES_SCHEMA).validate(predicate)
    (gate,) = (one for one in predicate["gates"] if one["gate"] == "task, arithmetic")
    assert gate["from"] == "/exactness/tasks/0"
    assert (gate["figures"]["metric"], gate["figures"]["bundle"]) == (["acc", "acc_norm"], [0.375, 0.4083])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"source": {"kind": "folder", "path": "model"}, "card": {"license": "other", "license_name": "ours"}},
        {"source": {"kind": "gguf", "file": "model.gguf"}, "card": {"license": "llama3.1"}},
        {"calibration": {"texts": [{"name": "own", "file": "own.jsonl"}, {"name": "math", "dataset": DATA_SET}]}},
        {"exactness": {"running_text": [], "prompts": [{"name": "own", "dataset": {"folder": "f", "split": "test"}}]}},
    ],
)
def test_the_bill_is_one_of_cyclonedx(config: dict[str, Any]) -> None:
    found = bill(**config)
    assert [error.message for error in bill_schema().iter_errors(found)] == []
    references = [one["bom-ref"] for one in found["components"]]
    assert len(set(references)) == len(references)
    asked = found["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    assert {one["ref"] for one in asked} <= set(references)


def test_the_schema_of_cyclonedx_refuses_what_is_no_bill() -> None:
    found = bill()
    found["metadata"]["component"]["licenses"] = [{"license": {"id": "no-licence"}}]
    assert not bill_schema().is_valid(found)
    assert not bill_schema().is_valid(bill() | {"serialNumber": "1"})


def test_every_licence_of_the_hub_has_its_identifier_of_spdx_if_there_is_one() -> None:
    listed = (files("taylor_ops") / "data" / "hub_licences.txt").read_text(encoding="utf-8").splitlines()
    hub = [word for line in listed if not line.startswith("#") for word in line.split()]
    spdx = {name.lower(): name for name in read("spdx")["enum"]}
    for name in hub:
        expected = {"id": spdx[name]} if name in spdx else {"name": name}
        assert licence(name)["license"] == expected


def test_a_config_that_names_no_texts_means_those_of_the_project() -> None:
    exactness = Exactness()
    meant = {
        "calibration": Calibration().texts,
        "exactness": exactness.prompts,
        "perplexity": exactness.running_text,
    }
    named = {use: [text.model_dump(mode="json", exclude_unset=True) for text in texts] for use, texts in meant.items()}
    assert named == bills._PROJECTS_OWN


def test_data_sets_and_sources_stand_with_their_commits_and_known_licences() -> None:
    found = {
        one["bom-ref"]: one
        for one in bill(calibration={"texts": [{"name": "math", "dataset": DATA_SET}]})["components"]
    }
    math, own = found["data/calibration/math"], found["data/exactness/project"]
    assert math["version"] == example.COMMIT
    assert math["data"][0]["contents"]["url"].endswith(f"openai/gsm8k/tree/{example.COMMIT}")
    assert "licenses" not in math
    assert own["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert found["source"]["purl"] == f"pkg:huggingface/owner/Tiny@{example.COMMIT}"
    assert found["tool/transformers"]["purl"] == "pkg:pypi/transformers@5.20.0"
    assert "purl" not in found["tool/torch"]


def test_a_build_of_a_tool_is_no_address_for_the_leak_gate() -> None:
    stated = statements()
    stated["tools"]["torch"] = "2.14.0.dev20261101+cu130"
    text = canonical_json(bill_of_materials(stated, FILES))
    assert leak_in(BILL_FILE, text.encode(), Machine("", "", ()), [], copied=False) is None


MANIFEST: dict[str, Any] = {
    "name": "pinned",
    "version": "1.0.0",
    "config": {
        "source": {"kind": "hub", "repo_id": "owner/name", "revision": "0" * 40},
        "card": {"license": "mit", "base_model": "owner/name"},
        "audit": {"policy": "block"},
    },
    "tools": {"taylor-release": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
    "source": {"origin": "owner/name", "model_type": "llama", "sha256": {"model.safetensors": "3" * 64}},
    "coverage": {"neurons_protected": 10, "neurons_total": 12},
    "conversion": {"layers": [{"truncation": 1e-3, "rounding": 1e-5, "marking": 0.0}]},
    "slowdown": {
        "target": 2.0,
        "tolerance": 0.1,
        "device": "CPU",
        "batch_size": 1,
        "prompt_tokens": 16,
        "new_tokens": 8,
        "layers": 1,
        "layers_measured": 1,
        "devices": [{"device": "GPU", "target": 3.0, "tolerance": 0.2}],
        "measured": {"slowdown": 2.01, "ci95": [1.9, 2.1], "devices": [{"slowdown": 3.1, "ci95": [3.0, 3.2]}]},
    },
    "exactness": {
        "data_sets": [
            {
                "name": "project",
                "bundle": {
                    "prompts": 2,
                    "prompts_equal": 1,
                    "tokens_compared": 9,
                    "first_divergence": 1,
                    "kl_mean": 1e-9,
                    "kl_max": 1e-8,
                    "divergences": [{"tie": True}],
                },
                "floor": {"divergences": [{"tie": True}]},
            }
        ],
        "layers": [{"path": "model.layers.0.mlp", "inside": 1e-4}],
        "perplexity": [{"name": "text", "bundle": 17.5}],
    },
    "audit": {
        "skipped": False,
        "in_words": "All of it.",
        "attacks": [{"attack": "rank_one", "weights": 10, "recovered_1pct": 0.001, "recovered_01pct": 0.0}],
    },
}


@pytest.mark.parametrize("signature", [None, {"public_key_sha256": "4" * 64}, {"identity": "a@b.org", "issuer": "i"}])
def test_form_1_stays_as_it_is_because_bundles_of_this_form_are_published(
    tmp_path: Path, signature: dict[str, str] | None
) -> None:
    """Whoever changes what is written adds a form, and keeps this one for the bundles that have it."""
    attest(tmp_path, MANIFEST | ({"signature": signature} if signature else {}), FILES)
    written = sha256_of_tree(tmp_path / FOLDER)
    pinned = hashlib.sha256(canonical_json(written).encode()).hexdigest()
    assert pinned == PINNED[None if signature is None else next(iter(signature))]


PINNED = {
    None: "197a5e38658805166f268a440dd89db4346c492d8e55760f4f1b34c8b2c32a39",
    "public_key_sha256": "c0f0df865142d63e0d0bf73889fda09a5e8e44f5f619998fc764fe3f7db8c13e",
    "identity": "77adcb1c4b822768c5bb7fe1520f19891894a163973df341ae5cbec1bbf186e9",
}
