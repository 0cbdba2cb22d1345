"""Attestations are held against the manifest: what is forged, missing or wrongly signed is refused and named."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flows.commands.main import app
from taylor_ops.attestations.attest import BILL_FILE, FOLDER, GATES_FILE, PROVENANCE_FILE, SIGNED_FILE, attest
from taylor_ops.bundle.manifest import CARD, MANIFEST
from taylor_ops.bundle.marked_copy import mark_bundle
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.evidence.key import Key
from taylor_ops.signing.keys import SIGNATURE, dsse_signature, name_of_key, sign
from taylor_ops.storage.files import canonical_json, read_json, sha256_of, sha256_of_tree
from taylor_ops.verification.verify import verify
from tests.support.keys import write_key
from tests.taylor_ops.conftest import Sample, silent
from tests.taylor_ops.signing.test_keys import assembled, public

PLAIN = (BILL_FILE, GATES_FILE, PROVENANCE_FILE)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture(scope="module")
def unsigned(llama: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assembled(llama, tmp_path_factory.mktemp("unsigned") / "bundle", None)


@pytest.fixture(scope="module")
def signed(llama: Sample, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assembled(llama, tmp_path_factory.mktemp("signed") / "bundle", key)


@pytest.fixture
def bundle(unsigned: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return shutil.copytree(unsigned, tmp_path / "bundle")


def change(file: Path, changed: Callable[[Any], object]) -> None:
    """Change a JSON file."""
    document = json.loads(file.read_text(encoding="utf-8"))
    changed(document)
    file.write_text(canonical_json(document), encoding="utf-8")


def relisted(bundle: Path) -> Path:
    """The bundle with a manifest that lists what there is now: only what is said tells a forger."""
    names = sha256_of_tree(bundle).keys() - {MANIFEST, SIGNATURE}
    change(
        bundle / MANIFEST, lambda manifest: manifest.update(files={name: sha256_of(bundle / name) for name in names})
    )
    return bundle


def refused(bundle: Path, public_key: bytes | None = None) -> str:
    with pytest.raises(GateRejected) as caught:
        verify(bundle, public_key)
    assert "do not use this copy" in caught.value.remedy
    return caught.value.cause


# What holds


def test_the_attestations_of_a_bundle_are_about_all_its_other_files_and_hold(unsigned: Path) -> None:
    assert verify(unsigned).attestations == 3
    everything = sha256_of_tree(unsigned)
    assert {name for name in everything if name.startswith(FOLDER)} == set(PLAIN)
    expected = {name: sha256 for name, sha256 in everything.items() if name not in (*PLAIN, MANIFEST)}
    for name in (GATES_FILE, PROVENANCE_FILE):
        subject = read_json(unsigned / name)["subject"]
        assert {one["name"]: one["digest"]["sha256"] for one in subject} == expected
    listed = read_json(unsigned / BILL_FILE)["metadata"]["component"]["components"]
    assert {one["name"]: one["hashes"][0]["content"] for one in listed} == expected


def test_the_card_links_them(unsigned: Path) -> None:
    text = (unsigned / CARD).read_text(encoding="utf-8")
    assert all(f"]({name})" in text for name in PLAIN)


def test_the_gates_are_stated_with_what_was_found(unsigned: Path) -> None:
    gates = {one["gate"]: one for one in read_json(unsigned / GATES_FILE)["predicate"]["gates"]}
    assert gates["neurons protected"]["figures"] == {"neurons_protected": 18432, "neurons_total": 18432}
    assert gates["slowdown"]["figures"]["slowdown"] == 2.97
    assert gates["slowdown, Example GPU 9"]["figures"]["target"] == 2.0
    found = gates["exactness, gsm8k"]["figures"]
    assert (found["prompts_equal"], found["prompts"], found["divergences_that_are_ties"]) == (23, 24, 1)
    assert gates["error of every MLP"]["figures"]["mlp"] == "model.layers.11.mlp"
    assert gates["audit, rank_one"]["verdict"] == "reported"
    assert gates["audit, rank_one"]["figures"]["recovered_1pct"] == 0.99997
    assert {one["verdict"] for name, one in gates.items() if not name.startswith("audit")} == {"passed"}


def test_every_figure_of_a_gate_stands_in_the_manifest_where_the_gate_says(unsigned: Path) -> None:
    manifest = read_json(unsigned / MANIFEST)
    for gate in read_json(unsigned / GATES_FILE)["predicate"]["gates"]:
        part: Any = manifest
        for key in gate["from"].split("/")[1:]:
            part = part[int(key)] if isinstance(part, list) else part[key]
        assert part, gate["from"]


@pytest.mark.parametrize(
    ("audit", "verdicts"),
    [
        ({"skipped": True, "attacks": []}, {"audit": "not run"}),
        ({"skipped": False}, {"audit, rank_one": "passed"}),
    ],
)
def test_an_audit_that_blocks_or_did_not_run_says_so(
    unsigned: Path, tmp_path: Path, audit: dict[str, Any], verdicts: dict[str, str]
) -> None:
    manifest = read_json(unsigned / MANIFEST)
    statements = manifest | {
        "audit": manifest["audit"] | audit,
        "config": manifest["config"] | {"audit": {"policy": "block"}},
    }
    attest(tmp_path, statements, {"a": "a" * 64})
    gates = read_json(tmp_path / GATES_FILE)["predicate"]["gates"]
    assert {one["gate"]: one["verdict"] for one in gates if one["gate"].startswith("audit")} == verdicts


def test_the_provenance_names_config_source_tools_and_who_signed(unsigned: Path, signed: Path, key: Path) -> None:
    manifest, predicate = read_json(unsigned / MANIFEST), read_json(unsigned / PROVENANCE_FILE)["predicate"]
    built, run = predicate["buildDefinition"], predicate["runDetails"]
    assert built["externalParameters"]["config"] == manifest["config"]
    assert {one["name"]: one["digest"]["sha256"] for one in built["resolvedDependencies"]} == manifest["source"][
        "sha256"
    ]
    assert run["builder"] == {"id": "urn:taylor-release:builder:unsigned", "version": manifest["tools"]}
    builder = read_json(signed / PROVENANCE_FILE)["predicate"]["runDetails"]["builder"]
    assert builder["id"].endswith(f":key:{name_of_key(public(key))}")


def test_the_provenance_names_what_a_run_had_in_place_of_its_config(unsigned: Path, tmp_path: Path) -> None:
    overridden = {"publish.approval": {"file": True, "run": False}}
    attest(tmp_path, read_json(unsigned / MANIFEST) | {"overridden": overridden}, {"a": "a" * 64})
    given = read_json(tmp_path / PROVENANCE_FILE)["predicate"]["buildDefinition"]["externalParameters"]
    assert given["overridden"] == overridden
    assert (
        "overridden" not in read_json(unsigned / PROVENANCE_FILE)["predicate"]["buildDefinition"]["externalParameters"]
    )


def test_equal_bundles_have_equal_attestations(llama: Sample, signed: Path, key: Path, tmp_path: Path) -> None:
    assert sha256_of_tree(assembled(llama, tmp_path / "again", key)) == sha256_of_tree(signed)


def test_a_bundle_of_a_version_that_made_none_is_verified(bundle: Path) -> None:
    shutil.rmtree(bundle / FOLDER)
    change(bundle / MANIFEST, lambda manifest: manifest.pop("attestations"))
    assert verify(relisted(bundle)).attestations == 0


def test_the_command_says_how_many_hold(unsigned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["verify", str(unsigned), "--no-tokens"], standalone_mode=False)
    assert "files as listed; 3 attestations hold\n" in capsys.readouterr().out


# What is forged


def metrics(bill: Any) -> Any:
    return bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]


FORGED: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "a figure of a gate": (
        GATES_FILE,
        lambda one: one["predicate"]["gates"][3]["figures"].update(prompts_equal=22),
        "/predicate/gates/3/figures/prompts_equal",
    ),
    "a verdict": (
        GATES_FILE,
        lambda one: one["predicate"]["gates"][-1].update(verdict="passed"),
        "/predicate/gates/6/verdict",
    ),
    "a gate left out": (GATES_FILE, lambda one: one["predicate"]["gates"].pop(), "/predicate/gates/6"),
    "the hash of a subject": (
        GATES_FILE,
        lambda one: one["subject"][0]["digest"].update(sha256="0" * 64),
        "/subject/0/digest/sha256",
    ),
    "a subject left out": (PROVENANCE_FILE, lambda one: one["subject"].pop(), "/subject/"),
    "another predicate": (GATES_FILE, lambda one: one.update(predicateType="urn:other"), "/predicateType"),
    "another config": (
        PROVENANCE_FILE,
        lambda one: one["predicate"]["buildDefinition"]["externalParameters"]["config"].update(version="9.9.9"),
        "/predicate/buildDefinition/externalParameters/config/version",
    ),
    "another source": (
        PROVENANCE_FILE,
        lambda one: one["predicate"]["buildDefinition"]["resolvedDependencies"][1]["digest"].update(sha256="0" * 64),
        "/predicate/buildDefinition/resolvedDependencies/1/digest/sha256",
    ),
    "another tool": (
        PROVENANCE_FILE,
        lambda one: one["predicate"]["runDetails"]["builder"]["version"].update(torch="1.0"),
        "/predicate/runDetails/builder/version/torch",
    ),
    "a time": (
        PROVENANCE_FILE,
        lambda one: one["predicate"]["runDetails"].update(metadata={"startedOn": "2026-01-01T00:00:00Z"}),
        "/predicate/runDetails/metadata",
    ),
    "a metric": (
        BILL_FILE,
        lambda one: metrics(one)[0].update(value="25"),
        "/metadata/component/modelCard/quantitativeAnalysis/performanceMetrics/0/value",
    ),
    "a licence": (
        BILL_FILE,
        lambda one: one["metadata"]["component"]["licenses"][0]["license"].update(id="MIT"),
        "/metadata/component/licenses/0/license/id",
    ),
    "a hash of the bill": (
        BILL_FILE,
        lambda one: one["metadata"]["component"]["components"][2]["hashes"][0].update(content="0" * 64),
        "/metadata/component/components/2/hashes/0/content",
    ),
    "a data set": (BILL_FILE, lambda one: one["components"][1].update(name="other"), "/components/1/name"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_is_forged_is_named_though_the_manifest_lists_it(bundle: Path, forged: str) -> None:
    name, changed, place = FORGED[forged]
    change(bundle / name, changed)
    cause = refused(bundle)
    assert cause == f"{bundle / name} does not have the bytes that the manifest lists"
    cause = refused(relisted(bundle))
    assert cause.startswith(f"{bundle / name} says something else than the manifest, at `{place}")


def test_a_figure_of_the_manifest_that_was_changed_is_found(bundle: Path) -> None:
    change(bundle / MANIFEST, lambda manifest: manifest["exactness"]["data_sets"][0]["bundle"].update(kl_mean=0.0))
    assert "says something else than the manifest, at `/" in refused(bundle)


@pytest.mark.parametrize("name", PLAIN)
def test_an_attestation_that_is_gone_is_missed(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert refused(bundle) == f"{bundle / name} is missing; the manifest lists it"
    assert refused(relisted(bundle)) == f"{bundle / name} is missing; the manifest states the attestation"


def test_an_attestation_that_is_none_of_the_release_is_refused(bundle: Path) -> None:
    (bundle / FOLDER / "more.json").write_text("{}")
    expected = f"{bundle / FOLDER / 'more.json'} is no attestation that the manifest states"
    assert refused(relisted(bundle)) == expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"subject": 3}'])
def test_what_is_no_attestation_is_refused_in_words(bundle: Path, content: bytes) -> None:
    (bundle / GATES_FILE).write_bytes(content)
    assert refused(relisted(bundle)).startswith(str(bundle / GATES_FILE))


def test_another_layout_is_refused(bundle: Path) -> None:
    (bundle / GATES_FILE).write_text(json.dumps(read_json(bundle / GATES_FILE)))
    assert refused(relisted(bundle)) == f"{bundle / GATES_FILE} is not written as attestations are"


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"form": 2, "gates": True}, "have form 2; this version reads form 1"),
        ("yes", "have form 'yes'"),
        ({"form": 1}, "lacks what its attestations follow from"),
    ],
)
def test_attestations_of_another_form_are_not_guessed(bundle: Path, stated: Any, says: str) -> None:
    change(bundle / MANIFEST, lambda manifest: manifest.update(attestations=stated))
    with pytest.raises(BadInput, match=says):
        verify(bundle)


@pytest.mark.parametrize("part", ["audit", "coverage", "config", "conversion", "tools", "slowdown", "source", "name"])
@pytest.mark.parametrize("value", [None, 3, "text", [], {}])
def test_a_manifest_from_which_nothing_follows_is_bad_input(bundle: Path, part: str, value: Any) -> None:
    change(bundle / MANIFEST, lambda manifest: manifest.update({part: value}))
    with pytest.raises((BadInput, GateRejected)) as caught:
        verify(bundle)
    assert str(bundle) in caught.value.cause


# Who signed


def test_a_key_signs_every_statement_in_the_form_of_dsse(signed: Path, key: Path) -> None:
    assert verify(signed, public(key)).attestations == verify(signed).attestations == 4
    envelopes = [json.loads(line) for line in (signed / SIGNED_FILE).read_text().splitlines()]
    held = [json.loads(base64.b64decode(one["payload"])) for one in envelopes]
    assert held[0]["predicate"] == read_json(signed / BILL_FILE)
    assert held[1:] == [read_json(signed / name) for name in (PROVENANCE_FILE, GATES_FILE)]
    assert {one["payloadType"] for one in envelopes} == {"application/vnd.in-toto+json"}


def test_a_signature_is_over_what_the_protocol_says(key: Path) -> None:
    made = dsse_signature("http://example.com/HelloWorld", b"hello world", key)
    reader = load_pem_public_key(public(key))
    assert isinstance(reader, ec.EllipticCurvePublicKey)
    # The example of the specification of DSSE.
    reader.verify(made, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        reader.verify(made, b"DSSEv1 29 http://example.com/HelloWorld 11 hello World", ec.ECDSA(hashes.SHA256()))


def forge_envelope(bundle: Path, key: Path, changed: Callable[[Any], object]) -> None:
    """Change the last envelope, list it and sign the bundle anew with its own key."""
    *others, last = (bundle / SIGNED_FILE).read_text().splitlines()
    envelope = json.loads(last)
    changed(envelope)
    (bundle / SIGNED_FILE).write_text("\n".join([*others, json.dumps(envelope)]) + "\n")
    (bundle / SIGNATURE).unlink()
    sign(relisted(bundle), key, "tiny-taylor-1.2.0")


def resigned(other: Path) -> Callable[[Any], object]:
    def changed(envelope: Any) -> None:
        made = dsse_signature(envelope["payloadType"], base64.b64decode(envelope["payload"]), other)
        envelope["signatures"][0]["sig"] = base64.b64encode(made).decode()

    return changed


def test_a_wrong_signature_is_refused_though_the_bundle_is_signed(signed: Path, key: Path, tmp_path: Path) -> None:
    other = write_key(tmp_path / "other.pem")
    cases: dict[str, Callable[[Any], object]] = {
        f"line 3: it was not signed with key {name_of_key(public(key))}": resigned(other),
        "line 3: it holds another statement than the bundle": lambda one: one.update(payload="e30="),
        "line 3: it is no signed envelope": lambda one: one.pop("signatures"),
    }
    for number, (says, changed) in enumerate(cases.items()):
        bundle = shutil.copytree(signed, tmp_path / str(number))
        forge_envelope(bundle, key, changed)
        assert refused(bundle, public(key)).endswith(says)


def test_another_name_of_the_key_is_refused_by_who_does_not_have_the_key(
    signed: Path, key: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(signed, tmp_path / "copy")
    forge_envelope(bundle, key, lambda one: one["signatures"][0].update(keyid="0" * 64))
    assert "line 3: it was not signed with key" in refused(bundle)


def test_envelopes_that_are_gone_are_missed(signed: Path, key: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(signed, tmp_path / "copy")
    lines = (bundle / SIGNED_FILE).read_text().splitlines()
    (bundle / SIGNED_FILE).write_text("\n".join(lines[:2]))
    assert refused(relisted(bundle)) == f"{bundle / SIGNED_FILE} holds 2 envelopes in place of 3"
    (bundle / SIGNED_FILE).unlink()
    assert refused(relisted(bundle)) == f"{bundle / SIGNED_FILE} is missing; the manifest states the attestation"


# Copies for further recipients


@pytest.mark.parametrize("by", [None, "key"])
def test_a_marked_copy_has_attestations_of_its_own_and_none_of_gates_that_did_not_run(
    signed: Path, key: Path, tmp_path: Path, by: str | None
) -> None:
    mark_bundle(signed, "acme", Key(b"k" * 32), 1e-3, tmp_path / "copy", silent, key if by else None)
    assert verify(tmp_path / "copy", public(key) if by else None).attestations == (3 if by else 2)
    assert not (tmp_path / "copy" / GATES_FILE).exists()
    text = (tmp_path / "copy" / CARD).read_text(encoding="utf-8")
    assert [f"]({name})" in text for name in PLAIN] == [True, False, True]
    for path in (tmp_path / "copy" / FOLDER).iterdir():
        assert b"acme" not in path.read_bytes()
