"""Write the attestations of a bundle, sign them, and hold them against its manifest.

The attestations are files of the bundle. They are about all its other files but manifest and signature, and follow from
the manifest alone. The manifest lists them like all files, and the signature of the bundle is over everything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taylor_ops.attestations.bill_of_materials import FORM as BILL_OF_MATERIALS
from taylor_ops.attestations.bill_of_materials import bill_of_materials
from taylor_ops.attestations.statements import GATES, PROVENANCE, gates_stated, provenance_stated, statement
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.signing.keys import (
    NOT_THIS_COPY,
    dsse_signature,
    dsse_signature_holds,
    name_of_key,
    public_key_of,
)
from taylor_ops.storage.files import canonical_json, sha256_of, write_text

FOLDER = "attestations"
GATES_FILE = f"{FOLDER}/gates.intoto.json"
PROVENANCE_FILE = f"{FOLDER}/provenance.intoto.json"
BILL_FILE = f"{FOLDER}/bom.cdx.json"
SIGNED_FILE = f"{FOLDER}/signed.intoto.jsonl"
"""The statements once more, each in an envelope (DSSE) that the key of the bundle signed."""

# Whoever changes what the attestations of a manifest say adds a form, and keeps this one: bundles stay.
_FORM = 1
_PAYLOAD = "application/vnd.in-toto+json"


def attest(
    folder: Path,
    statements: Mapping[str, Any],
    files: Mapping[str, str],
    key_file: Path | None = None,
    gates: bool = True,
) -> dict[str, Any]:
    """Write the attestations of a bundle that is complete but for manifest and signature.

    Args:
        folder: Folder of the bundle.
        statements: What the manifest is to state, except for the files and the attestations.
        files: sha256 of every file in `folder`, by name.
        key_file: PEM file with the private key that signs them. None: they are not signed.
        gates: Whether the gates ran on this bundle, and may be stated.

    Returns:
        The whole manifest, which lists the attestations too.

    Raises:
        BadInput: The manifest lacks what attestations follow from.
    """
    manifest = {**statements, "attestations": {"form": _FORM, "gates": gates}, "files": dict(files)}
    written = _texts(folder, manifest)
    if key_file is not None:
        written[SIGNED_FILE] = "".join(_envelope(text, key_file) + "\n" for text in _payloads(manifest, written))
    for name, text in written.items():
        write_text(folder / name, text)
    return manifest | {"files": {**files, **{name: sha256_of(folder / name) for name in written}}}


def require_attested(bundle: Path, manifest: Mapping[str, Any], public_key: bytes | None = None) -> int:
    """Check that the attestations of a bundle say what follows from its manifest. Call it after their hashes.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest.
        public_key: The public key, as PEM, that must have signed them. None: who signed them is not checked.

    Returns:
        The number of attestations. A bundle of a version that made none has 0.

    Raises:
        GateRejected: One is missing, is not known, says something else, or is not signed as the manifest states.
        BadInput: The manifest is not whole, or a later version wrote it.
    """
    listed = {name for name in manifest["files"] if name.startswith(f"{FOLDER}/")}
    expected, payloads = _expected(bundle, manifest)
    signed = _signed_with(manifest) if expected else None
    names = expected.keys() | ({SIGNED_FILE} if signed else set())
    for name in sorted(names - listed):
        raise GateRejected(f"{bundle / name} is missing; the manifest states the attestation", NOT_THIS_COPY)
    for name in sorted(listed - names):
        raise GateRejected(f"{bundle / name} is no attestation that the manifest states", NOT_THIS_COPY)
    for name, text in expected.items():
        found = _read(bundle / name)
        if found != text:
            place = _place_of_difference(json.loads(text), _parsed(bundle / name, found))
            raise GateRejected(
                f"{bundle / name} says something else than the manifest, at `{place}`"
                if place is not None
                else f"{bundle / name} is not written as attestations are",
                NOT_THIS_COPY,
            )
    if signed is not None:
        _require_signed(bundle / SIGNED_FILE, payloads, signed, public_key)
    return len(names)


def _expected(bundle: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The text of each attestation that follows from the manifest by name, and what the envelopes hold."""
    stated = manifest.get("attestations")
    if stated is None:
        return {}, []
    form = stated.get("form") if isinstance(stated, dict) else stated
    if form != _FORM:
        raise BadInput(
            f"the attestations of {bundle} have form {form!r}; this version reads form {_FORM}",
            "use a newer taylor-release",
        )
    expected = _texts(bundle, manifest)
    return expected, _payloads(manifest, expected)


def _texts(bundle: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    files = _subject(manifest)
    try:
        found = {
            BILL_FILE: bill_of_materials(manifest, files),
            PROVENANCE_FILE: statement(files, PROVENANCE, provenance_stated(manifest)),
        }
        if manifest["attestations"]["gates"] is True:
            found[GATES_FILE] = statement(files, GATES, gates_stated(manifest))
        return {name: canonical_json(document) for name, document in found.items()}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BadInput(
            f"the manifest of {bundle} lacks what its attestations follow from ({reason})", "use another copy"
        ) from error


def _subject(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the attestations are about: every file of a manifest but themselves."""
    return {name: sha256 for name, sha256 in manifest["files"].items() if not name.startswith(f"{FOLDER}/")}


def _payloads(manifest: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    """What each envelope holds. The bill is no statement by itself, and becomes the predicate of one."""
    about = statement(_subject(manifest), BILL_OF_MATERIALS, json.loads(texts[BILL_FILE]))
    return [canonical_json(about), *(text for name, text in texts.items() if name not in (BILL_FILE, SIGNED_FILE))]


def _envelope(payload: str, key_file: Path) -> str:
    signature = dsse_signature(_PAYLOAD, payload.encode(), key_file)
    envelope = {
        "payloadType": _PAYLOAD,
        "payload": base64.b64encode(payload.encode()).decode(),
        "signatures": [
            {"keyid": name_of_key(public_key_of(key_file)), "sig": base64.b64encode(signature).decode()},
        ],
    }
    return json.dumps(envelope, sort_keys=True)


def _signed_with(manifest: Mapping[str, Any]) -> str | None:
    """The name of the key that signed the attestations, as the manifest states it. None if no key did."""
    signature = manifest.get("signature") or {}
    name = signature.get("public_key_sha256")
    return name if isinstance(name, str) else None


def _require_signed(file: Path, payloads: list[str], key: str, public_key: bytes | None) -> None:
    """Check that `file` holds an envelope for each of `payloads`, and that the key signed it, as far as it is known."""
    lines = _read(file).splitlines()
    if len(lines) != len(payloads):
        raise GateRejected(f"{file} holds {len(lines)} envelopes in place of {len(payloads)}", NOT_THIS_COPY)
    for number, (line, payload) in enumerate(zip(lines, payloads, strict=True), start=1):
        try:
            envelope = json.loads(line)
            (signature,) = envelope["signatures"]
            kind, keyid = envelope["payloadType"], signature["keyid"]
            held, made = (base64.b64decode(one, validate=True) for one in (envelope["payload"], signature["sig"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise GateRejected(f"{file}, line {number}: it is no signed envelope", NOT_THIS_COPY) from error
        if kind != _PAYLOAD or held != payload.encode():
            raise GateRejected(f"{file}, line {number}: it holds another statement than the bundle", NOT_THIS_COPY)
        if keyid != key or (public_key is not None and not dsse_signature_holds(kind, held, made, public_key)):
            wanted = key if public_key is None else name_of_key(public_key)
            raise GateRejected(f"{file}, line {number}: it was not signed with key {wanted}", NOT_THIS_COPY)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GateRejected(f"{file} cannot be read: {error}", NOT_THIS_COPY) from error


def _parsed(file: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GateRejected(f"{file} is no JSON: {error}", NOT_THIS_COPY) from error


def _place_of_difference(expected: Any, found: Any, place: str = "") -> str | None:
    """A JSON pointer to the first difference of two documents. None if they are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys: list[Any] = sorted(expected.keys() | found.keys())
        missing = next((key for key in keys if key not in expected or key not in found), None)
        pairs = [(key, expected[key], found[key]) for key in keys if key in expected and key in found]
    elif isinstance(expected, list) and isinstance(found, list):
        shorter = min(len(expected), len(found))
        missing = shorter if len(expected) != len(found) else None
        pairs = [(index, expected[index], found[index]) for index in range(shorter)]
    else:
        return None if expected == found else place or "/"
    for key, one, other in pairs:
        inside = _place_of_difference(one, other, f"{place}/{key}")
        if inside is not None:
            return inside
    return None if missing is None else f"{place}/{missing}"
