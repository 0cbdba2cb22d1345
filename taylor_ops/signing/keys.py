"""OpenSSF model signing of a bundle: one signature in `model.sig` over all its files, the manifest included."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.storage.files import canonical_json, read_json, write_text

SIGNATURE = "model.sig"
PASSWORD = "TAYLOR_RELEASE_KEY_PASSWORD"
"""Environment variable with the password of an encrypted key."""

_CURVES = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
NOT_THIS_COPY = "do not use this copy; fetch or publish the release again"


def public_key_of(key_file: Path) -> bytes:
    """The public key, as PEM, of the private key in a PEM file. Raises `BadInput` if no key in it can sign."""
    key = _loaded(key_file, lambda pem: load_pem_private_key(pem, _password()))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _not_usable(key_file, f"it must be an elliptic curve key ({', '.join(_CURVES)})")
    return _pem(key.public_key())


def read_public_key(file: Path) -> bytes:
    """The public key in a PEM file, as PEM. Raises `BadInput` if the file has no key that could have signed."""
    key = _loaded(file, load_pem_public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _not_usable(file, f"it must be an elliptic curve key ({', '.join(_CURVES)})")
    return _pem(key)


def name_of_key(public_key: bytes) -> str:
    """The name of a key in signatures and manifests: the SHA-256 of its PEM."""
    return hashlib.sha256(public_key).hexdigest()


def sign(folder: Path, key_file: Path, name: str) -> None:
    """Sign everything in `folder` and write the signature into it.

    Equal folders, keys and names give equal bytes.

    Args:
        folder: Folder to sign.
        key_file: PEM file with the private key.
        name: Name of the model in the signature.
    """
    # Imported here because it loads much that a release without a key does not need.
    from model_signing.signing import Config

    public_key_of(key_file)
    key = load_pem_private_key(key_file.read_bytes(), _password())
    config = Config().use_elliptic_key_signer(private_key=key_file, password=_password())
    signature_made(folder, config, name, lambda envelope: _make_reproducible(envelope, key))


def signature_made(
    folder: Path, config: Any, name: str, change: Callable[[dict[str, Any]], None] = lambda _envelope: None
) -> None:
    """Let the library `model_signing` sign everything in `folder`, and write the signature there.

    Args:
        folder: Folder to sign.
        config: Config of the library, which holds the signer.
        name: Name of the model in the signature.
        change: Receives the envelope of the signature before it is written.
    """
    config.set_hashing_config(_hashing())
    with tempfile.TemporaryDirectory() as scratch:
        # The signature states the last part of the path, and a bundle that is being made has a temporary name.
        link, file = Path(scratch) / name, Path(scratch) / SIGNATURE
        link.symlink_to(folder.absolute())
        config.sign(link, file)
        signature = read_json(file)
    change(signature["dsseEnvelope"])
    write_text(folder / SIGNATURE, canonical_json(signature))


def require_signed(folder: Path, public_key: bytes) -> None:
    """Check that `folder` holds the files that the private part of `public_key` signed, and no others.

    Raises:
        GateRejected: The signature is missing, damaged or of another key, or files are not as they were signed.
    """
    from model_signing.verifying import Config

    with tempfile.TemporaryDirectory() as scratch:
        key = Path(scratch) / "key.pub"
        key.write_bytes(public_key)
        signature_read(folder, Config().use_elliptic_key_verifier(public_key=key), f"key {name_of_key(public_key)}")


def signature_read(folder: Path, config: Any, signer: str) -> None:
    """Let the library `model_signing` check the signature in `folder`.

    Args:
        folder: Signed folder.
        config: Config of the library, which holds the signer to expect.
        signer: Name of this signer, for errors.

    Raises:
        GateRejected: The signature is missing, damaged or of another signer, or files are not as they were signed.
    """
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise GateRejected(f"{signature} is missing: {folder} is not signed", NOT_THIS_COPY)
    config.set_hashing_config(_hashing())
    try:
        config.verify(folder, signature)
    except InvalidSignature as error:
        raise GateRejected(f"{signature} was not made with {signer}", NOT_THIS_COPY) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # The library has no error of its own for a file that is no signature.
        raise GateRejected(f"{signature} does not sign what is in {folder}: {_reason(error)}", NOT_THIS_COPY) from error


def dsse_signature(kind: str, payload: bytes, key_file: Path) -> bytes:
    """The signature of an envelope (DSSE). Equal arguments give equal bytes.

    Args:
        kind: Type of the payload.
        payload: What is signed.
        key_file: PEM file with the private key.

    Raises:
        BadInput: No key in the file can sign.
    """
    public_key_of(key_file)
    return _signed(load_pem_private_key(key_file.read_bytes(), _password()), kind, payload)


def dsse_signature_holds(kind: str, payload: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the private part of `public_key`, as PEM, signed the payload of an envelope (DSSE)."""
    key = load_pem_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature, _as_signed(kind, payload), ec.ECDSA(_CURVES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _hashing() -> Any:
    """Hash all files but the signature. A link counts as the file that it leads to, because a Hub cache has links."""
    from model_signing.hashing import Config

    # The signature states these paths. With more than one, every process would state them in another order.
    return Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False).set_allow_symlinks(True)


def _reason(error: Exception) -> str:
    """The error of the library in one line. Of changed files only the names, because it shows digests as raw bytes."""
    changed = re.findall(r"Hash mismatch for \\?'(.+?)\\?':", str(error))
    return f"{', '.join(changed)} changed" if changed else " ".join(str(error).split())


def _make_reproducible(envelope: dict[str, Any], key: Any) -> None:
    """Sign an envelope (DSSE) anew, because the library's order of keys and its signature differ on every run."""
    payload = canonical_json(json.loads(base64.b64decode(envelope["payload"]))).encode()
    signature = _signed(key, envelope["payloadType"], payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()


def _signed(key: Any, kind: str, payload: bytes) -> bytes:
    made: bytes = key.sign(_as_signed(kind, payload), ec.ECDSA(_CURVES[key.curve.name], deterministic_signing=True))
    return made


def _as_signed(kind: str, payload: bytes) -> bytes:
    """What the signature of an envelope (DSSE) is over: the payload and its type."""
    named = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(named), named, len(payload), payload)


def _password() -> bytes | None:
    password = os.environ.get(PASSWORD)
    return password.encode() if password else None


def _loaded(file: Path, load: Any) -> Any:
    try:
        return load(file.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_usable(file, " ".join(str(error).split())) from error


def _not_usable(file: Path, reason: str) -> BadInput:
    return BadInput(
        f"{file} holds no usable key: {reason}",
        f"name a PEM file with the key, made for instance with `openssl ecparam -name prime256v1 -genkey -noout`; "
        f"set {PASSWORD} to the password of an encrypted key",
    )


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
