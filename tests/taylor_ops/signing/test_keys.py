"""A signed bundle verifies with its key alone, as it was signed; everything else is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from flows.commands.main import app
from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import MANIFEST, stated
from taylor_ops.config.publish import Publish, Signing
from taylor_ops.errors import BadInput, GateRejected, ReleaseError
from taylor_ops.signing.keys import (
    PASSWORD,
    SIGNATURE,
    name_of_key,
    public_key_of,
    read_public_key,
    require_signed,
    sign,
)
from taylor_ops.storage.files import canonical_json, files_below, read_json, sha256_of, sha256_of_tree
from taylor_ops.verification.verify import verify
from tests.support import release_example as example
from tests.support.keys import write_key
from tests.taylor_ops.conftest import Sample


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys-of-anna") / "secret-name.pem")


def assembled(llama: Sample, folder: Path, key: Path | None) -> Path:
    """A bundle without recorded tokens, signed where there is a key."""
    exactness = example.exactness().model_copy(update={"continuations": ()})
    evidence = Findings(
        source=example.source(),
        converted=example.converted(),
        latency=example.latency(),
        exactness=exactness,
        audit=example.audit(),
    )
    signing = None if key is None else Signing(key_file=key)
    config = example.config(publish=Publish(repo_id="example-org/Tiny-Taylor", signing=signing))
    document = example.document()
    if key is not None:
        document["publish"]["signing"] = {"key_file": str(key)}
    record = assemble(llama.converted, config, stated(document), evidence, folder)
    assert record.files == sha256_of_tree(folder)
    return folder


@pytest.fixture(scope="module")
def signed(llama: Sample, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assembled(llama, tmp_path_factory.mktemp("signed") / "bundle", key)


@pytest.fixture
def bundle(signed: Path, tmp_path: Path) -> Path:
    """A signed bundle to spoil."""
    return shutil.copytree(signed, tmp_path / "copy")


def public(key: Path) -> bytes:
    return read_public_key(key.with_suffix(".pub"))


def refused(bundle: Path, key: Path) -> str:
    with pytest.raises(GateRejected) as caught:
        verify(bundle, public(key))
    assert "do not use this copy" in caught.value.remedy
    return caught.value.cause


def test_a_signed_bundle_is_verified_wherever_it_lies(bundle: Path, key: Path) -> None:
    found = verify(bundle, public(key))
    assert found.signed_by == name_of_key(public(key)) == read_json(bundle / MANIFEST)["signature"]["public_key_sha256"]
    assert found.files == len(sha256_of_tree(bundle)) - 2
    assert verify(bundle).signed_by is None


def test_the_key_is_named_by_its_hash_and_its_place_is_nowhere(bundle: Path, key: Path) -> None:
    for path in files_below(bundle):
        content = path.read_bytes()
        assert b"secret-name" not in content
        assert b"keys-of-anna" not in content


def test_a_signature_is_in_the_form_of_model_signing(bundle: Path, key: Path) -> None:
    command = ["-m", "model_signing", "verify", "key", "--public_key", str(key.with_suffix(".pub"))]
    done = subprocess.run([sys.executable, *command, "--signature", str(bundle / SIGNATURE), str(bundle)], check=False)
    assert done.returncode == 0


def test_equal_bundles_have_equal_signatures_in_every_process(signed: Path, bundle: Path, key: Path) -> None:
    (bundle / SIGNATURE).unlink()
    again = "from pathlib import Path; from taylor_ops.signing.keys import sign; import sys; "
    again += "sign(Path(sys.argv[1]), Path(sys.argv[2]), 'tiny-taylor-1.2.0')"
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    subprocess.run([sys.executable, "-c", again, str(bundle), str(key)], check=True, env=environment)
    assert sha256_of_tree(bundle) == sha256_of_tree(signed)


def test_a_cache_made_of_links_is_verified(bundle: Path, key: Path, tmp_path: Path) -> None:
    for path in files_below(bundle):
        link = tmp_path / "links" / path.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert verify(tmp_path / "links", public(key)).signed_by


def test_a_changed_file_is_refused_though_the_manifest_was_changed_with_it(bundle: Path, key: Path) -> None:
    (bundle / "README.md").write_text("other")
    manifest = read_json(bundle / MANIFEST)
    manifest["files"]["README.md"] = sha256_of(bundle / "README.md")
    (bundle / MANIFEST).write_text(canonical_json(manifest))
    with pytest.raises(GateRejected, match="says something else than the manifest, at `"):
        verify(bundle)
    assert refused(bundle, key).endswith(f"does not sign what is in {bundle}: README.md, {MANIFEST} changed")


@pytest.mark.parametrize("change", ["added", "removed"])
def test_an_added_and_a_removed_file_are_named(bundle: Path, key: Path, change: str) -> None:
    if change == "added":
        (bundle / "more.py").write_text("")
    else:
        (bundle / "config.json").unlink()
    assert {"added": "more.py", "removed": "config.json"}[change] in refused(bundle, key)


def test_another_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    assert f"{bundle / SIGNATURE}" in refused(bundle, write_key(tmp_path / "other.pem"))


def test_a_signature_of_another_key_that_names_this_one_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    (bundle / SIGNATURE).unlink()
    sign(bundle, write_key(tmp_path / "other.pem"), "tiny-taylor-1.2.0")
    forged = json.loads((bundle / SIGNATURE).read_text())
    forged["verificationMaterial"]["publicKey"]["hint"] = name_of_key(public(key))
    (bundle / SIGNATURE).write_text(json.dumps(forged))
    assert f"was not made with key {name_of_key(public(key))}" in refused(bundle, key)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"verificationMaterial": {}}', "\0"])
def test_what_is_no_signature_is_refused(bundle: Path, key: Path, content: str) -> None:
    (bundle / SIGNATURE).write_text(content)
    assert str(bundle / SIGNATURE) in refused(bundle, key)


def test_a_missing_signature_is_refused_with_a_key_and_where_the_manifest_promises_one(
    llama: Sample, bundle: Path, key: Path, tmp_path: Path
) -> None:
    (bundle / SIGNATURE).unlink()
    assert f"{bundle / SIGNATURE} is missing" in refused(bundle, key)
    with pytest.raises(GateRejected, match="the manifest says that the bundle is signed"):
        verify(bundle)
    unsigned = assembled(llama, tmp_path / "unsigned", None)
    assert verify(unsigned).files
    assert "is not signed" in refused(unsigned, key)
    shutil.copyfile(bundle / MANIFEST, unsigned / SIGNATURE)
    with pytest.raises(GateRejected, match=r"model\.sig is not in the manifest"):
        verify(unsigned)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "rsa", "ed25519", "curve", "public"])
def test_a_file_without_a_usable_key_is_bad_input_before_any_work(tmp_path: Path, key: Path, kind: str) -> None:
    file = tmp_path / "key.pem"
    match kind:
        case "empty":
            file.write_text("")
        case "text":
            file.write_text("-----BEGIN NOTHING-----\n")
        case "rsa":
            write_key(file, rsa.generate_private_key(65537, 2048))
        case "ed25519":
            write_key(file, ed25519.Ed25519PrivateKey.generate())
        case "curve":
            write_key(file, ec.generate_private_key(ec.SECP256K1()))
        case "public":
            shutil.copyfile(key.with_suffix(".pub"), file)
    with pytest.raises(BadInput, match=f"{file.name} holds no usable key") as caught:
        public_key_of(file)
    assert "openssl" in caught.value.remedy


def test_an_encrypted_key_opens_with_the_password_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_key(tmp_path / "key.pem", password=b"sesame")
    with pytest.raises(BadInput, match="no usable key"):
        public_key_of(file)
    monkeypatch.setenv(PASSWORD, "sesame")
    assert public_key_of(file) == public(file)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("a")
    sign(tmp_path / "model", file, "a")
    require_signed(tmp_path / "model", public(file))


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_longer_keys_sign_too(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    file = write_key(tmp_path / "key.pem", ec.generate_private_key(curve))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("a")
    sign(tmp_path / "model", file, "a")
    require_signed(tmp_path / "model", public(file))


def test_the_command_takes_a_public_key(
    bundle: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(file: Path) -> None:
        app(["verify", str(bundle), "--public-key", str(file), "--no-tokens"], standalone_mode=False)

    run(key.with_suffix(".pub"))
    assert f"signed by {name_of_key(public(key))}; " in capsys.readouterr().out
    for wrong, status in ((write_key(tmp_path / "other.pem").with_suffix(".pub"), 1), (tmp_path / "none.pub", 2)):
        with pytest.raises(ReleaseError) as caught:
            run(wrong)
        assert caught.value.exit_status == status
