"""What came out of a release in a few lines: three figures, and where bundle and report are."""

from __future__ import annotations

from taylor_ops.audit.record import AttackResult
from taylor_ops.presentation.sentences import recovered_in_words
from taylor_ops.presentation.wording import count, figure, fixed
from taylor_ops.releases.record import ReleaseRecord


def outcome(record: ReleaseRecord, bundle: str, report: str) -> list[str]:
    """Lines for whoever waited for a release.

    Args:
        record: The release.
        bundle: The place of the published bundle.
        report: The place of its report.
    """
    slowdown, data_sets = record.slowdown, record.exactness.values()
    low, high, target = fixed(slowdown.ci95[0], 2), fixed(slowdown.ci95[1], 2), figure(slowdown.target, 3)
    equal = sum(data_set.bundle.prompts_equal for data_set in data_sets)
    prompts = sum(data_set.bundle.prompts for data_set in data_sets)
    published = "is published" if record.published.pull_request is None else "is left for review"
    return [
        f"{record.name} {record.version} {published}: {bundle}",
        f"slowdown {fixed(slowdown.achieved, 2)} (95 % of loadings {low} to {high}, target {target})",
        f"tokens equal on {count(equal)} of {count(prompts)} prompts",
        _recovered(list(record.audit.values())),
        f"report: {report}",
    ]


def _recovered(attacks: list[AttackResult]) -> str:
    if not attacks:
        return "no attack was run"
    most = max(attacks, key=lambda attack: attack.recovered_1pct)
    return f"{recovered_in_words(most.recovered_1pct)} ({most.attack})"
