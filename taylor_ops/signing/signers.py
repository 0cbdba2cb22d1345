"""Who signs a bundle, with a key or as an identity: in a config, in a manifest, and for a reader who verifies."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.config.publish import Signing
from taylor_ops.errors import BadInput
from taylor_ops.signing.keys import SIGNATURE, name_of_key, public_key_of, read_public_key, require_signed, sign
from taylor_ops.signing.sigstore import Identity, require_able_to_sign, require_signed_as, sign_as

Signer = bytes | Identity
"""The public key, as PEM, or the identity against which a signature is checked."""


def signer_of(signing: Signing) -> Signer:
    """The signer that a config names. Raises `BadInput` if its key file has no key that can sign."""
    if signing.key_file is not None:
        return public_key_of(signing.key_file)
    assert signing.identity is not None
    assert signing.issuer is not None
    return Identity(identity=signing.identity, issuer=signing.issuer)


def require_signer(signing: Signing | None) -> None:
    """Raise `BadInput` or `WorkFailed` if a bundle could not be signed as a config asks, hours before it is signed."""
    signer = None if signing is None else signer_of(signing)
    if isinstance(signer, Identity):
        require_able_to_sign(signer)


def name_of(signer: Signer) -> str:
    """The name of a signer for people."""
    return signer.name if isinstance(signer, Identity) else name_of_key(signer)


def statement_of(signer: Signer) -> dict[str, str]:
    """The statement of a manifest about its signature."""
    if isinstance(signer, Identity):
        return {"file": SIGNATURE, "identity": signer.identity, "issuer": signer.issuer}
    return {"file": SIGNATURE, "public_key_sha256": name_of_key(signer)}


def sign_bundle(folder: Path, signing: Signing, name: str) -> None:
    """Sign everything in `folder` and write the signature into it. It states `name` as the name of the model."""
    signer = signer_of(signing)
    if isinstance(signer, Identity):
        sign_as(folder, signer, name)
    elif signing.key_file is not None:
        sign(folder, signing.key_file, name)


def require_signed_by(folder: Path, signer: Signer) -> None:
    """Raise `GateRejected` unless `folder` holds the files that `signer` signed, and no others."""
    if isinstance(signer, Identity):
        require_signed_as(folder, signer)
    else:
        require_signed(folder, signer)


def signer_named(public_key: Path | None, identity: str | None, issuer: str | None) -> Signer | None:
    """The signer that a reader names: the file of a public key, or an identity and its issuer. None if neither.

    Raises:
        BadInput: Both are given, or an identity without issuer or the reverse, or a file without a usable key.
    """
    if (identity is None) != (issuer is None):
        raise BadInput("an identity and its issuer go together", "give both --identity and --issuer")
    if public_key is not None and identity is not None:
        raise BadInput("a bundle has one signature", "give either --public-key, or --identity and --issuer")
    if public_key is not None:
        return read_public_key(public_key)
    return None if identity is None or issuer is None else Identity(identity=identity, issuer=issuer)
