"""Sign a bundle as a config asks: with the key in a file, or as an identity."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.config.publish import Signing
from taylor_ops.signing.keys import public_key_of, sign
from taylor_ops.signing.signers import Signer
from taylor_ops.signing.sigstore import Identity, require_able_to_sign, sign_as


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


def sign_bundle(folder: Path, signing: Signing, name: str) -> None:
    """Sign everything in `folder` and write the signature into it. It states `name` as the name of the model."""
    signer = signer_of(signing)
    if isinstance(signer, Identity):
        sign_as(folder, signer, name)
    elif signing.key_file is not None:
        sign(folder, signing.key_file, name)
