"""A bundle is signed as the identity that its config names, and verified by that identity alone.

Sigstore is a service, and there is no network here: an elliptic curve key stands in for the certificate that it would
give, beside a note of whose it is. The library that signs, the tokens and all arguments are the real ones.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from huggingface_hub import constants
from model_signing import signing, verifying
from sigstore.errors import TUFError, VerificationError
from sigstore.oidc import IdentityToken

from flows.commands.main import app
from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import MANIFEST, stated
from taylor_ops.config.publish import Publish, Signing
from taylor_ops.config.release import public_texts
from taylor_ops.errors import BadInput, GateRejected, WorkFailed
from taylor_ops.signing.configured import require_signer
from taylor_ops.signing.keys import SIGNATURE
from taylor_ops.signing.sigstore import TOKEN, Identity
from taylor_ops.storage.files import files_below, read_json
from taylor_ops.verification.verify import verify
from tests.support import release_example as example
from tests.support.keys import write_key
from tests.taylor_ops.conftest import Sample

ANN = Identity(identity="ann@example.org", issuer="https://accounts.google.com")
BOB = Identity(identity="bob@example.org", issuer="https://accounts.google.com")
SIGNING = Signing(method="sigstore", identity=ANN.identity, issuer=ANN.issuer)


def token_of(who: Identity, **more: Any) -> str:
    """A token as an issuer gives it, with a signature that nobody here looks at."""
    now = int(time.time())
    claims = {"iss": who.issuer, "sub": "1", "email": who.identity, "aud": "sigstore", "iat": now, "exp": now + 600}
    return jwt.encode(claims | more, "of no meaning, and as long as it has to be", algorithm="HS256")


class Refusing(verifying.Config):
    """What verifies another identity than the certified one."""

    def verify(self, *_given: Any) -> None:
        raise VerificationError("Certificate's SANs do not match")


class StandIn:
    """Sigstore, as far as the library that signs reaches it: whom it certified, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.key = write_key(folder / "certificate.pem")
        self.certified: tuple[str, str] | None = None
        self.asked: list[dict[str, Any]] = []

    def signer(self, config: signing.Config, **given: Any) -> signing.Config:
        """In place of `use_sigstore_signer`."""
        self.asked.append(given)
        token = IdentityToken(given["identity_token"])
        self.certified = (token.identity, token.federated_issuer)
        return config.use_elliptic_key_signer(private_key=self.key)

    def verifier(self, config: verifying.Config, **given: Any) -> verifying.Config:
        """In place of `use_sigstore_verifier`."""
        self.asked.append(given)
        if self.certified != (given["identity"], given["oidc_issuer"]):
            return Refusing()
        return config.use_elliptic_key_verifier(public_key=self.key.with_suffix(".pub"))


@pytest.fixture
def sigstore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path)
    monkeypatch.setattr(signing.Config, "use_sigstore_signer", lambda config, **given: made.signer(config, **given))
    monkeypatch.setattr(
        verifying.Config, "use_sigstore_verifier", lambda config, **given: made.verifier(config, **given)
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv(TOKEN, token_of(ANN))
    return made


def assembled(llama: Sample, folder: Path) -> Path:
    """A bundle without recorded tokens, signed as Ann."""
    evidence = Findings(
        source=example.source(),
        converted=example.converted(),
        latency=example.latency(),
        exactness=example.exactness().model_copy(update={"continuations": ()}),
        audit=example.audit(),
    )
    config = example.config(publish=Publish(repo_id="example-org/Tiny-Taylor", signing=SIGNING))
    assemble(llama.converted, config, stated(example.document()), evidence, folder)
    return folder


def test_a_bundle_is_signed_with_the_token_of_the_run_and_says_as_whom(
    llama: Sample, sigstore: StandIn, tmp_path: Path
) -> None:
    bundle = assembled(llama, tmp_path / "bundle")
    asked_to_sign, asked_to_verify = sigstore.asked
    assert asked_to_sign == {"identity_token": os.environ[TOKEN]}
    assert asked_to_verify == {"identity": ANN.identity, "oidc_issuer": ANN.issuer}
    stated_there = read_json(bundle / MANIFEST)["signature"]
    assert stated_there == {"file": SIGNATURE, "identity": ANN.identity, "issuer": ANN.issuer}
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert f"--identity {ANN.identity} --issuer {ANN.issuer}" in card
    assert not any(os.environ[TOKEN].encode() in path.read_bytes() for path in files_below(bundle))
    assert verify(bundle, ANN).signed_by == f"{ANN.identity} ({ANN.issuer})"


def test_another_identity_a_changed_file_and_a_missing_signature_are_refused(
    llama: Sample, sigstore: StandIn, tmp_path: Path
) -> None:
    bundle = assembled(llama, tmp_path / "bundle")
    with pytest.raises(GateRejected, match=r"was not signed by bob@example\.org"):
        verify(bundle, BOB)
    changed = shutil.copytree(bundle, tmp_path / "changed")
    (changed / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(GateRejected, match=r"does not sign what is in .*: config\.json changed"):
        verify(changed, ANN)
    (bundle / SIGNATURE).unlink()
    with pytest.raises(GateRejected, match=r"model\.sig is missing"):
        verify(bundle, ANN)


def test_the_command_takes_an_identity_with_its_issuer(
    llama: Sample, sigstore: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(assembled(llama, tmp_path / "bundle"))
    whose = ["--identity", ANN.identity, "--issuer", ANN.issuer]
    app(["verify", bundle, *whose], standalone_mode=False)
    assert f"signed by {ANN.identity} ({ANN.issuer}); " in capsys.readouterr().out
    for wrong in (whose[:2], whose[2:], [*whose, "--public-key", str(sigstore.key.with_suffix(".pub"))]):
        with pytest.raises(BadInput):
            app(["verify", bundle, *wrong], standalone_mode=False)


# Before any work


def test_a_run_without_a_token_and_one_of_somebody_else_are_refused(
    sigstore: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_signer(SIGNING)
    for token, says in (
        (token_of(BOB), r"the identity token is of bob@example\.org"),
        (token_of(ANN, iss="https://issuer.example"), r"is of 1 \(https://issuer\.example\)"),
        (token_of(ANN, exp=1), "the identity token is not usable"),
        ("no token", "the identity token is not usable"),
    ):
        monkeypatch.setenv(TOKEN, token)
        with pytest.raises(BadInput, match=says) as caught:
            require_signer(SIGNING)
        assert token not in str(caught.value) or token == "no token"
    monkeypatch.delenv(TOKEN)
    with pytest.raises(BadInput, match="there is no identity token") as caught:
        require_signer(SIGNING)
    assert TOKEN in caught.value.remedy


def test_a_run_without_a_network_is_refused(sigstore: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_config: signing.Config, **_given: Any) -> signing.Config:
        raise TUFError("Failed to refresh TUF metadata")

    monkeypatch.setattr(signing.Config, "use_sigstore_signer", away)
    with pytest.raises(WorkFailed, match="Sigstore does not answer"):
        require_signer(SIGNING)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE is set, and Sigstore is a service"):
        require_signer(SIGNING)


def test_a_certificate_for_somebody_else_is_refused_before_anything_is_published(
    llama: Sample, sigstore: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = Identity(identity="https://example.org/w.yml@refs/heads/main", issuer=ANN.issuer)
    monkeypatch.setattr(
        sigstore, "signer", lambda config, **_given: config.use_elliptic_key_signer(private_key=sigstore.key)
    )
    sigstore.certified = (workflow.identity, workflow.issuer)
    with pytest.raises(BadInput, match="the identity token signs as somebody else"):
        assembled(llama, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_who_signs_may_stand_in_the_bundle() -> None:
    config = example.config(publish=Publish(repo_id="example-org/Tiny-Taylor", signing=SIGNING))
    assert ANN.identity in public_texts(config)
