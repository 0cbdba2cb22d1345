"""What came out of a release: the sentence with which everything about it begins, and the lines with which it ends."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from taylor_ops.audit.record import AttackResult
from taylor_ops.exactness.record import DataSetExactness
from taylor_ops.presentation.sentences import headline, recovered_in_words
from taylor_ops.presentation.wording import count, figure, fixed
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


def outcome(record: ReleaseRecord, bundle: str, report: str) -> list[str]:
    """Lines for whoever waited for a release: three figures, and where bundle and report are.

    Args:
        record: The release.
        bundle: The place of the published bundle.
        report: The place of its report.
    """
    slowdown = record.slowdown
    low, high, target = fixed(slowdown.ci95[0], 2), fixed(slowdown.ci95[1], 2), figure(slowdown.target, 3)
    equal, prompts = _equal(record.exactness.values())
    published = "is published" if record.published.pull_request is None else "is left for review"
    return [
        f"{record.name} {record.version} {published}: {bundle}",
        f"slowdown {fixed(slowdown.achieved, 2)} (95 % of loadings {low} to {high}, target {target})",
        f"tokens equal on {count(equal)} of {count(prompts)} prompts",
        _strongest(record.audit.values()),
        f"report: {report}",
    ]


def _equal(data_sets: Collection[DataSetExactness]) -> tuple[int, int]:
    runs = [data_set.bundle for data_set in data_sets]
    return sum(run.prompts_equal for run in runs), sum(run.prompts for run in runs)


def _recovered(attacks: Collection[AttackResult]) -> float | None:
    return max((attack.recovered_1pct for attack in attacks), default=None)


def _strongest(attacks: Collection[AttackResult]) -> str:
    if not attacks:
        return "no attack was run"
    most = max(attacks, key=lambda attack: attack.recovered_1pct)
    return f"{recovered_in_words(most.recovered_1pct)} ({most.attack})"
