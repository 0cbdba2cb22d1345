"""Verify a bundle where it lies: the files of its manifest, no others, and the recorded tokens in a clean process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taylor_ops.bundle import MANIFEST
from taylor_ops.clean_process import continuations_of
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.files import read_json, sha256_of_tree
from taylor_ops.records import Record


class Verified(Record):
    """What was checked: files by hash, and prompts continued with the recorded tokens."""

    files: int
    prompts: int
    tokens: int


def verify(bundle: Path) -> Verified:
    """Check hashes, then load the bundle in a clean process and compare what it says with the manifest.

    Raises `BadInput` for a folder that is no bundle, `GateRejected` with the file or prompt that is not as recorded.
    """
    manifest = read_manifest(bundle)
    expected: dict[str, str] = manifest["files"]
    found = sha256_of_tree(bundle)
    found.pop(MANIFEST)
    remedy = "do not use this copy; fetch or publish the release again"
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise GateRejected(f"{bundle / name} is missing; the manifest lists it", remedy)
        if name not in expected:
            raise GateRejected(f"{bundle / name} is not in the manifest", remedy)
        if found[name] != expected[name]:
            raise GateRejected(f"{bundle / name} does not have the bytes that the manifest lists", remedy)
    recorded = manifest["exactness"]["continuations"]
    if not recorded:
        return Verified(files=len(expected), prompts=0, tokens=0)
    length = min(len(one["new_tokens"]) for one in recorded)
    said = continuations_of(bundle, [one["prompt_tokens"] for one in recorded], length)
    for one, tokens in zip(recorded, said, strict=True):
        if tokens != one["new_tokens"][:length]:
            position = next(i for i, (a, b) in enumerate(zip(tokens, one["new_tokens"], strict=False)) if a != b)
            raise GateRejected(
                f"{bundle} continues prompt {one['prompt']} with other tokens than recorded, from new token {position}",
                remedy,
            )
    return Verified(files=len(expected), prompts=len(recorded), tokens=length * len(recorded))


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
