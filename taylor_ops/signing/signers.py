"""Who signed a bundle, with a key or as an identity: in a manifest, and for a reader who verifies."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.errors import BadInput
from taylor_ops.signing.keys import SIGNATURE, name_of_key, read_public_key, require_signed
from taylor_ops.signing.sigstore import Identity, require_signed_as

Signer = bytes | Identity
"""The public key, as PEM, or the identity against which a signature is checked."""


def name_of(signer: Signer) -> str:
    """The name of a signer for people."""
    return signer.name if isinstance(signer, Identity) else name_of_key(signer)


def statement_of(signer: Signer) -> dict[str, str]:
    """The statement of a manifest about its signature."""
    if isinstance(signer, Identity):
        return {"file": SIGNATURE, "identity": signer.identity, "issuer": signer.issuer}
    return {"file": SIGNATURE, "public_key_sha256": name_of_key(signer)}


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
