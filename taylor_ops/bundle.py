"""Assemble the bundle: the converted model with its card and its manifest.

It states the claims that were checked (the target slowdown and its tolerance, an upper bound on the seconds of an
attack) and, unless `card.measured` is off, the timings of calibration and audit: those alone differ between two runs.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from taylor_ops.approval import Approval
from taylor_ops.audit.claims import claims
from taylor_ops.audit.record import AuditRecord
from taylor_ops.card import render_card
from taylor_ops.card_plots import card_plots
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.conversion.record import IN_WORDS, ConvertedModel
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.latency.record import LatencyRecord, Pairs
from taylor_ops.signing.signers import sign_bundle, signer_of, statement_of
from taylor_ops.source.record import ResolvedSource
from taylor_ops.storage.files import canonical_json, folder_that_appears_whole, link_or_copy, sha256_of_tree, write_text
from taylor_ops.storage.record import Record

MANIFEST = "taylor_release.json"
CARD = "README.md"

_TOOLS = ("taylor-release", "torch", "transformers", "safetensors", "tokenizers", "numpy", "matplotlib")


class BundleRecord(Record):
    """The assembled bundle. folder: its name below the run's folder; files: sha256 by name, the manifest included."""

    folder: str
    bytes: int
    files: dict[str, str]


class Findings(Record):
    """Everything that a card and a manifest state about one release."""

    source: ResolvedSource
    converted: ConvertedModel
    latency: LatencyRecord
    exactness: ExactnessRecord
    audit: AuditRecord
    approval: Approval | None = None

    def identity(self) -> dict[str, Any]:
        """What the bundle may state."""
        return _statements(self, measured=True)


def assemble(
    converted_folder: Path, config: ReleaseConfig, document: dict[str, Any], findings: Findings, folder: Path
) -> BundleRecord:
    """Make the bundle in `folder` from the converted model; weights are linked, not copied, where the disk allows."""
    statements = {
        "format": 1,
        "name": config.name,
        "version": config.version,
        "config": portable(document),
        "tools": {tool: version(tool) for tool in _TOOLS} | {"python": platform.python_version()},
    } | _statements(findings, config.card.measured)
    signing = config.publish.signing
    if signing is not None:
        statements["signature"] = statement_of(signer_of(signing))
    with folder_that_appears_whole(folder) as partial:
        for path in sorted(converted_folder.iterdir()):
            link_or_copy(path, partial / path.name)
        write_text(partial / CARD, render_card(statements, config))
        for name, picture in card_plots(statements).items():
            (partial / name).write_bytes(picture)
        files = sha256_of_tree(partial)
        write_text(partial / MANIFEST, canonical_json(statements | {"files": files}))
        if signing is not None:
            sign_bundle(partial, signing, f"{config.name}-{config.version}")
    return BundleRecord(
        folder=folder.name,
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        files=sha256_of_tree(folder),
    )


def _statements(findings: Findings, measured: bool) -> dict[str, Any]:
    converted, latency, exactness = findings.converted, findings.latency, findings.exactness
    return (
        {
            "source": findings.source.portable(),
            "coverage": {
                "neurons_protected": converted.neurons_protected,
                "neurons_total": converted.neurons_total,
            },
            "conversion": {
                "basis": converted.plan.basis,
                "dtype": exactness.dtype,
                "tolerance": converted.plan.plain()["tolerance"],
                "columns": converted.plan.columns,
                "mean_order": converted.plan.mean_order,
                "bytes": converted.bytes,
                "original_bytes": converted.original_bytes,
                "layers": [layer.plain() for layer in converted.layers],
            },
            "slowdown": {
                "target": latency.target,
                "tolerance": latency.tolerance,
                "device": latency.device,
                "batch_size": latency.batch_size,
                "prompt_tokens": latency.prompt_tokens,
                "new_tokens": latency.new_tokens,
                "layers": latency.layers,
                "layers_measured": latency.layers_measured,
                "devices": [
                    {"device": one.device, "target": one.target, "tolerance": one.tolerance} for one in latency.devices
                ],
            }
            | ({"measured": _timed(latency)} if measured else {}),
            "exactness": exactness.plain(),
            "audit": claims(findings.audit, measured),
        }
        | ({"approval": findings.approval.plain()} if findings.approval else {})
        | marked_statement(converted.mark is not None)
    )


def marked_statement(marked: bool = True) -> dict[str, Any]:
    """What a marked copy states: that it is one, and not whose. Nothing where it is not marked."""
    return {"evidence": {"marked": True, "in_words": IN_WORDS}} if marked else {}


def _timed(latency: LatencyRecord) -> dict[str, Any]:
    """What was timed, which no other run finds to the same digit."""
    return {
        **Pairs(**{name: getattr(latency.achieved, name) for name in Pairs.model_fields}).plain(),
        "trials": [
            {
                "columns": trial.plan.columns,
                "predicted": trial.predicted,
                "slowdown": trial.slowdown,
                "ci95": trial.ci95,
            }
            for trial in latency.trials
        ],
        "shapes": [shape.plain() for shape in latency.shapes],
        "devices": [
            {name: value for name, value in there.plain().items() if name not in ("target", "tolerance", "met")}
            for there in latency.devices
        ],
    }


def stated(document: dict[str, Any]) -> dict[str, Any]:
    """What a bundle states of a config document: all but who did the work, on which nothing in it depends, who receives
    it, and the keys.

    Who signed, the manifest states of the signature; where a key lies, nothing.
    """
    result = {key: value for key, value in document.items() if key not in ("execution", "evidence")}
    if isinstance(result.get("publish"), dict):
        result["publish"] = {key: value for key, value in result["publish"].items() if key != "signing"}
    return result


def portable(value: Any) -> Any:
    """A config document with absolute paths cut to their last part: no place of this machine leaves it."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
