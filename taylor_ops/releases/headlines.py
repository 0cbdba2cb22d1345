"""The sentences with which everything about one release begins: its report, its artifacts, and its approval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from taylor_ops.audit.record import AttackResult
from taylor_ops.exactness.record import DataSetExactness
from taylor_ops.presentation.sentences import headline
from taylor_ops.releases.record import ReleaseRecord

if TYPE_CHECKING:
    from taylor_ops.bundle.findings import Findings


def headline_of(record: ReleaseRecord) -> str:
    """What came out of a finished release."""
    slowdown, bundle = record.slowdown, record.bundle
    return headline(
        *_equal(record.exactness.values()),
        slowdown.achieved,
        slowdown.target,
        slowdown.tolerance,
        bundle.bytes / bundle.original_bytes,
        _recovered(record.audit.values()),
    )


def headline_before_publication(findings: Findings) -> str:
    """What a person approves. The bytes are those of all tensors."""
    latency, converted = findings.latency, findings.converted
    return headline(
        *_equal(findings.exactness.data_sets),
        latency.achieved.slowdown,
        latency.target,
        latency.tolerance,
        converted.bytes / converted.original_bytes,
        _recovered(findings.audit.attacks),
    )


def _equal(data_sets: Iterable[DataSetExactness]) -> tuple[int, int]:
    runs = [data_set.bundle for data_set in data_sets]
    return sum(run.prompts_equal for run in runs), sum(run.prompts for run in runs)


def _recovered(attacks: Iterable[AttackResult]) -> float | None:
    return max((attack.recovered_1pct for attack in attacks), default=None)
