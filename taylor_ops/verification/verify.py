"""Verify a published bundle: its signature, its files and attestations against the manifest, its tokens against the
recorded ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taylor_ops.attestations.attest import require_attested
from taylor_ops.bundle.manifest import MANIFEST, NO_BUNDLE, read_manifest
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.progress import Progress, part_of, silent
from taylor_ops.signing.keys import NOT_THIS_COPY, SIGNATURE
from taylor_ops.signing.signers import Signer, name_of, require_signed_by
from taylor_ops.storage.files import files_below, kind_of, sha256_of_all
from taylor_ops.verification.clean_process import CleanProcess, clean_process
from taylor_ops.verification.record import Verified
from taylor_ops.verification.trust import require_trusted_code

_Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class _Part(BaseModel):
    """The part of a manifest that verification needs."""

    model_config = ConfigDict(strict=True, frozen=True)


class _Continuation(_Part):
    prompt: str
    prompt_tokens: _Tokens
    new_tokens: _Tokens


class _Exactness(_Part):
    continuations: list[_Continuation]


class _Withdrawn(_Part):
    why: str


class _Manifest(_Part):
    files: dict[str, str]
    exactness: _Exactness
    signature: dict[str, Any] | None = None
    yanked: _Withdrawn | None = None


# What is read in less time than a process takes to start.
_SMALL = 16 * 2**20
# The share of the hashes in the progress, in percent. The rest are the tokens.
_HASHING = 20


def verify(
    bundle: Path,
    signer: Signer | None = None,
    tokens: bool = True,
    progress: Progress = silent,
    trust_code: bool = False,
    own: bool = False,
) -> Verified:
    """Check signature, hashes and attestations, then load the bundle in a clean process and compare its tokens.

    The process starts while large files are read. No code of the bundle runs before every hash is checked. Code that no
    version of this project has runs only if the signer signed it or the caller trusts it.

    Args:
        bundle: Folder of the bundle.
        signer: Who must have signed it, by key or identity. Without a signer, no signature is checked.
        tokens: Whether to compare continuations of the recorded prompts.
        progress: Receives what is done, of 100.
        trust_code: Whether the code may run whatever it is.
        own: Whether this project has just made the bundle on this machine. Its code runs unasked.

    Raises:
        BadInput: The folder is not a bundle.
        GateRejected: The version was withdrawn, the signature is not the signer's, a file or a continuation is not as
            recorded, an attestation says something else than the manifest, or the code is unknown. The message names
            it.
    """
    document = read_manifest(bundle)
    manifest = _whole(bundle / MANIFEST, document)
    if manifest.yanked is not None:
        raise GateRejected(f"{bundle} was withdrawn: {manifest.yanked.why}", "use another version")
    _require_only_files(bundle)
    if signer is not None:
        require_signed_by(bundle, signer)
    signed_by = None if signer is None else name_of(signer)
    recorded = manifest.exactness.continuations if tokens else []
    length = min((len(continuation.new_tokens) for continuation in recorded), default=0)
    hashing = part_of(progress, 0, _HASHING if recorded else 100, 100)
    large = _require_small_files(bundle, manifest)
    attestations = require_attested(bundle, document, signer if isinstance(signer, bytes) else None)
    if recorded:
        require_trusted_code(bundle, signed_by is not None, trust_code or own)
    with clean_process(own) if recorded else nullcontext() as process:
        _require_hashes(bundle, manifest, large, hashing)
        if process is not None:
            continuing = part_of(progress, _HASHING, 100 - _HASHING, 100)
            _require_tokens(bundle, recorded, length, process, continuing)
    return Verified(
        files=len(manifest.files),
        attestations=attestations,
        prompts=len(recorded),
        tokens=length * len(recorded),
        signed_by=signed_by,
    )


def _whole(path: Path, document: Mapping[str, Any]) -> _Manifest:
    try:
        return _Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path} is not a whole manifest: {where}: {first['msg']}", NO_BUNDLE) from error


def _require_only_files(bundle: Path) -> None:
    """Refuse pipes, devices and links to folders before anything reads them. The Hub's cache links to files."""
    for path in files_below(bundle):
        if not path.is_file():
            raise GateRejected(f"{path} is {kind_of(path)}, not a file", NOT_THIS_COPY)


def _require_small_files(bundle: Path, manifest: _Manifest) -> list[str]:
    """Check that the bundle has the files of its manifest and no others, and the hashes of the small ones.

    Returns the names of the large files.
    """
    expected, found = manifest.files, {path.relative_to(bundle).as_posix(): path for path in files_below(bundle)}
    found.pop(MANIFEST)
    if manifest.signature is not None and found.pop(SIGNATURE, None) is None:
        raise GateRejected(
            f"{bundle / SIGNATURE} is missing; the manifest says that the bundle is signed", NOT_THIS_COPY
        )
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise GateRejected(f"{bundle / name} is missing; the manifest lists it", NOT_THIS_COPY)
        if name not in expected:
            raise GateRejected(f"{bundle / name} is not in the manifest", NOT_THIS_COPY)
    large = [name for name in sorted(found) if found[name].is_file() and found[name].stat().st_size > _SMALL]
    _require_hashes(bundle, manifest, sorted(found.keys() - set(large)), silent)
    return large


def _require_hashes(bundle: Path, manifest: _Manifest, names: Sequence[str], progress: Progress) -> None:
    hashes = sha256_of_all([bundle / name for name in names], progress)
    for name, sha256 in zip(names, hashes, strict=True):
        if sha256 != manifest.files[name]:
            raise GateRejected(f"{bundle / name} does not have the bytes that the manifest lists", NOT_THIS_COPY)


def _require_tokens(
    bundle: Path, recorded: list[_Continuation], length: int, process: CleanProcess, progress: Progress
) -> None:
    prompts = [continuation.prompt_tokens for continuation in recorded]
    continued = process.continuations_of(bundle, prompts, length, progress)
    for continuation, new in zip(recorded, continued, strict=True):
        expected = continuation.new_tokens[:length]
        if new != expected:
            # A continuation that ends early differs from its end on, if not before.
            differs = (i for i, (a, b) in enumerate(zip(new, expected, strict=False)) if a != b)
            position = next(differs, min(len(new), length))
            raise GateRejected(
                f"{bundle} continues prompt {continuation.prompt} with other tokens than recorded, "
                f"from new token {position}",
                NOT_THIS_COPY,
            )
