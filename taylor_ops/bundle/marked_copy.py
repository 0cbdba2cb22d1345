"""Mark a copy of a bundle for a further recipient: new terms, card, attestations and manifest; all other files stay as
they are.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from taylor_ops.attestations.attest import FOLDER, GATES_FILE, attest
from taylor_ops.bundle.manifest import CARD, IN_WORDS, MANIFEST, below_the_metadata, marked_statement, read_manifest
from taylor_ops.config.evidence import LEAST_STRENGTH, MOST_STRENGTH, RECIPIENT
from taylor_ops.errors import BadInput
from taylor_ops.evidence.key import Key
from taylor_ops.evidence.marking import Copy, MarkedModel
from taylor_ops.progress import Progress
from taylor_ops.signing.keys import SIGNATURE, name_of_key, public_key_of, sign
from taylor_ops.storage.files import (
    canonical_json,
    files_below,
    folder_that_appears_whole,
    require_free,
    sha256_of,
    write_text,
)


def mark_bundle(
    bundle: Path,
    recipient: str,
    key: Key,
    strength: float,
    folder: Path,
    progress: Progress,
    signing_key: Path | None = None,
) -> None:
    """Write the copy of `bundle` for `recipient` into `folder`, whole or not at all. It needs no original.

    The manifest of the copy lists the files of the copy. No gate ran on them, so no attestation states gates.

    Args:
        bundle: Folder of an unmarked bundle.
        recipient: Who receives the copy.
        key: The owner's key, from which the mark follows.
        strength: Strength of the mark, as `evidence.strength`.
        folder: Folder that becomes the copy.
        progress: Receives the progress of marking.
        signing_key: File of the key that signs the copy. The signature of the bundle does not hold for it, so without
            this key the copy is unsigned.

    Raises:
        BadInput: The bundle is marked already, the folder exists, or another argument is not valid.
    """
    manifest = read_manifest(bundle)
    if re.fullmatch(RECIPIENT, recipient) is None:
        raise BadInput(f"recipient `{recipient}` is no name", "use letters, digits and . _ @ + -")
    if "evidence" in manifest:
        raise BadInput(
            f"{bundle} is marked already; a second mark would name both recipients",
            "mark a bundle that was released without `evidence`, or release again with another `evidence.recipient`",
        )
    if not LEAST_STRENGTH <= strength <= MOST_STRENGTH:
        raise BadInput(
            f"strength {strength} is not between {LEAST_STRENGTH:g} and {MOST_STRENGTH:g}", "correct `--strength`"
        )
    if folder.absolute().is_relative_to(bundle.absolute()):
        raise BadInput(f"{folder} lies inside the bundle", "name a folder beside it")
    if folder.exists():
        raise BadInput(f"{folder} exists already", "name a folder that does not exist")
    needed = sum(path.stat().st_size for path in files_below(bundle))
    require_free(folder, needed)
    statements = {key: value for key, value in manifest.items() if key not in ("signature", "files", "attestations")}
    statements |= marked_statement()
    if signing_key is not None:
        statements["signature"] = {"file": SIGNATURE, "public_key_sha256": name_of_key(public_key_of(signing_key))}
    copy = Copy(key, recipient, str(manifest["version"]), strength)
    with folder_that_appears_whole(folder, needed) as partial:
        written = MarkedModel(bundle, copy).write(partial, progress)
        for changed in (CARD, MANIFEST, SIGNATURE):
            (partial / changed).unlink(missing_ok=True)
        shutil.rmtree(partial / FOLDER, ignore_errors=True)
        write_text(partial / CARD, _card(bundle))
        files = _listed(manifest["files"], written | {CARD: sha256_of(partial / CARD)})
        copied = attest(partial, statements, files, signing_key, gates=False)
        write_text(partial / MANIFEST, canonical_json(copied))
        if signing_key is not None:
            sign(partial, signing_key, f"{manifest['name']}-{manifest['version']}")


def _listed(files: dict[str, Any], renewed: dict[str, str]) -> dict[str, Any]:
    """The files of the bundle but its attestations, with the hashes of those that were made anew."""
    return {name: renewed.get(name, sha256) for name, sha256 in files.items() if not name.startswith(f"{FOLDER}/")}


def _card(bundle: Path) -> str:
    text = (bundle / CARD).read_text(encoding="utf-8")
    without_gates = re.sub(rf", \[[^\]]*\]\({re.escape(GATES_FILE)}\)( \([\w-]+\))?", "", text)
    return below_the_metadata(without_gates, f"> {IN_WORDS}")
