"""The records of the stages before the bundle, and what manifest and card state of them."""

from __future__ import annotations

from typing import Any

from taylor_ops.audit.claims import claims
from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle.manifest import marked_statement
from taylor_ops.bundle.record import Approval
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.latency.record import LatencyRecord, Pairs
from taylor_ops.source.record import ResolvedSource
from taylor_ops.storage.record import Record
from taylor_ops.tasks.record import TaskScores


class Findings(Record):
    """Everything that a card and a manifest state about one release."""

    source: ResolvedSource
    converted: ConvertedModel
    latency: LatencyRecord
    exactness: ExactnessRecord
    audit: AuditRecord
    tasks: tuple[TaskScores, ...] = ()
    approval: Approval | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that the bundle may state, which decides the stages `approve` and `assemble`."""
        return statements_of(self, measured=True)


def statements_of(findings: Findings, measured: bool) -> dict[str, Any]:
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
            "exactness": exactness.plain()
            | ({"tasks": [task.plain() for task in findings.tasks]} if findings.tasks else {}),
            "audit": claims(findings.audit, measured),
        }
        | ({"approval": findings.approval.plain()} if findings.approval else {})
        | marked_statement(converted.mark is not None)
    )


def _timed(latency: LatencyRecord) -> dict[str, Any]:
    """The timings, which are different in every run."""
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
