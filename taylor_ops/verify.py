"""Verify a bundle where it lies: its signature, the files of its manifest and no others, the recorded tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taylor_ops.bundle import MANIFEST
from taylor_ops.clean_process import continuations_of
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.files import read_json, sha256_of_tree
from taylor_ops.records import Record
from taylor_ops.signing import SIGNATURE, name_of_key, require_signed


class Verified(Record):
    """What was checked: files by hash, and prompts continued with the recorded tokens. signed_by: the key, if any."""

    files: int
    prompts: int
    tokens: int
    signed_by: str | None = None


def verify(bundle: Path, public_key: bytes | None = None, tokens: bool = True) -> Verified:
    """Check the signature, then hashes, then load the bundle in a clean process and compare what it says.

    public_key: PEM of the key that must have signed it; without one a signature is not looked at. tokens: whether the
    recorded continuations are made again. Raises `BadInput` for a folder that is no bundle, `GateRejected` with the
    file or prompt that is not as recorded.
    """
    manifest = read_manifest(bundle)
    if "yanked" in manifest:
        raise GateRejected(f"{bundle} was withdrawn: {manifest['yanked']['why']}", "use another version")
    if public_key is not None:
        require_signed(bundle, public_key)
    signed_by = None if public_key is None else name_of_key(public_key)
    expected: dict[str, str] = manifest["files"]
    found = sha256_of_tree(bundle)
    found.pop(MANIFEST)
    remedy = "do not use this copy; fetch or publish the release again"
    if "signature" in manifest and found.pop(SIGNATURE, None) is None:
        raise GateRejected(f"{bundle / SIGNATURE} is missing; the manifest says that the bundle is signed", remedy)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise GateRejected(f"{bundle / name} is missing; the manifest lists it", remedy)
        if name not in expected:
            raise GateRejected(f"{bundle / name} is not in the manifest", remedy)
        if found[name] != expected[name]:
            raise GateRejected(f"{bundle / name} does not have the bytes that the manifest lists", remedy)
    recorded = manifest["exactness"]["continuations"] if tokens else []
    if not recorded:
        return Verified(files=len(expected), prompts=0, tokens=0, signed_by=signed_by)
    length = min(len(one["new_tokens"]) for one in recorded)
    said = continuations_of(bundle, [one["prompt_tokens"] for one in recorded], length)
    for one, new in zip(recorded, said, strict=True):
        if new != one["new_tokens"][:length]:
            position = next(i for i, (a, b) in enumerate(zip(new, one["new_tokens"], strict=False)) if a != b)
            raise GateRejected(
                f"{bundle} continues prompt {one['prompt']} with other tokens than recorded, from new token {position}",
                remedy,
            )
    return Verified(files=len(expected), prompts=len(recorded), tokens=length * len(recorded), signed_by=signed_by)


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle folder; `BadInput` when there is none to read."""
    path = bundle / MANIFEST
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "point the command at the folder of a bundle") from error
    whole = isinstance(manifest.get("files"), dict) and isinstance(manifest.get("exactness"), dict)
    if manifest.get("format") == 1 and not whole:
        raise BadInput(f"{path} is not a whole manifest", "point the command at the folder of a bundle")
    if manifest.get("format") != 1:
        raise BadInput(f"{path} has format {manifest.get('format')!r}, known is 1", "use a newer taylor-release")
    return manifest
