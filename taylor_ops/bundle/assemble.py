"""Assemble the bundle: the converted model with its card, its attestations and its manifest.

The bundle states the claims that were checked: the target slowdown and its tolerance, an upper bound on the seconds of
an attack. Unless `card.measured` is off, it also states the timings of calibration and audit. Only these differ between
two runs.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from taylor_ops.attestations.attest import attest
from taylor_ops.bundle.card import render_card
from taylor_ops.bundle.card_plots import card_plots
from taylor_ops.bundle.evaluations import EVAL_RESULTS, eval_results
from taylor_ops.bundle.findings import Findings, statements_of
from taylor_ops.bundle.manifest import CARD, MANIFEST, portable
from taylor_ops.bundle.record import BundleRecord
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.tighter import TIGHTER
from taylor_ops.errors import BadInput
from taylor_ops.progress import Progress, silent
from taylor_ops.signing.configured import sign_bundle, signer_of
from taylor_ops.signing.signers import statement_of
from taylor_ops.source.card_files import card_files
from taylor_ops.storage.files import (
    canonical_json,
    files_below,
    folder_that_appears_whole,
    link_or_copy,
    sha256_of,
    sha256_of_tree,
    write_text,
)

_TOOLS = ("taylor-release", "torch", "transformers", "safetensors", "tokenizers", "numpy", "matplotlib")
LOADS_WITH = {"python": "3.11", "torch": "2.6", "transformers": "5.20"}
"""The least versions with which a bundle is loaded: those that this project asks for, whose tests load bundles."""


def assemble(
    converted_folder: Path,
    config: ReleaseConfig,
    document: dict[str, Any],
    findings: Findings,
    folder: Path,
    progress: Progress = silent,
    overridden: Mapping[str, Any] = {},
) -> BundleRecord:
    """Make the bundle from the converted model.

    Args:
        converted_folder: Folder of the converted model. Its files are linked if the disk allows it, and copied if not.
        config: The release config.
        document: What the bundle states of the config (`manifest.stated`).
        findings: The records of the stages before.
        folder: Folder that becomes the bundle. An earlier one is replaced.
        progress: Receives the bytes that were hashed, and all bytes.
        overridden: What the bundle states of the values of this run (`stated_overrides`).
    """
    statements = {
        "format": 1,
        "name": config.name,
        "version": config.version,
        "config": portable(document),
        "tools": {tool: version(tool) for tool in _TOOLS} | {"python": platform.python_version()},
        "loads_with": LOADS_WITH,
    } | statements_of(findings, config.card.measured)
    if overridden:
        statements["overridden"] = portable(overridden)
    signing = config.publish.signing
    if signing is not None:
        statements["signature"] = statement_of(signer_of(signing))
    with folder_that_appears_whole(folder) as partial:
        for path in files_below(converted_folder):
            _put(path, partial / path.relative_to(converted_folder))
        for name, path in card_files(config, findings.source.folder).items():
            _copy(path, partial / name)
        write_text(partial / CARD, render_card(statements, config))
        for name, picture in card_plots(statements).items():
            (partial / name).write_bytes(picture)
        results = eval_results(statements, config)
        if results is not None:
            write_text(partial / EVAL_RESULTS, results)
        files = sha256_of_tree(partial, progress)
        manifest = attest(partial, statements, files, None if signing is None else signing.key_file)
        files = manifest["files"]
        write_text(partial / MANIFEST, canonical_json(manifest))
        if signing is not None:
            sign_bundle(partial, signing, f"{config.name}-{config.version}")
    added = {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file() and path.name not in files}
    return BundleRecord(
        folder=folder.name,
        bytes=sum(path.stat().st_size for path in files_below(folder)),
        files=dict(sorted((files | added).items())),
    )


def stated_overrides(overridden: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a bundle states of what was overridden, by dotted key: `run`, and `file` of a key that guards the release.

    Other values of the file may name who receives another copy. Nothing is stated of what `manifest.stated` leaves out.
    """
    left_out = re.compile(r"(execution|evidence|publish\.signing)(\.|$)")
    return {
        key: dict(one) if key in TIGHTER else {"run": one["run"]}
        for key, one in overridden.items()
        if not left_out.match(key)
    }


def _put(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(path, target)


def _copy(path: Path, target: Path) -> None:
    """Copy a file of the source, which its owner may change later, and which may be a link."""
    if target.exists():
        raise BadInput(f"`card.files`: {target.name} is a file that the release makes itself", "leave it out")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
