"""The gate of an audit: under `audit.policy: block` no release goes out from which an attack gets too much."""

from __future__ import annotations

from taylor_ops.audit.record import AuditRecord
from taylor_ops.config.audit import Audit
from taylor_ops.errors import GateRejected
from taylor_ops.presentation.wording import percent


def require_allowed(record: AuditRecord, settings: Audit) -> None:
    """Raise `GateRejected` naming attack, figure and threshold where the policy is to block; else do nothing.

    An attack that could not tell all weights lets nothing pass: a gate must not hold for want of samples.
    """
    if settings.policy != "block":
        return
    for result in record.attacks:
        threshold = float(getattr(settings.thresholds, result.attack))
        if result.recovered_1pct > threshold:
            raise GateRejected(
                f"attack `{result.attack}` recovers {percent(result.recovered_1pct)} of the withheld weights to within "
                f"1 %, more than the {percent(threshold)} of `audit.thresholds.{result.attack}`",
                "`audit.policy: disclose` publishes the release with this figure on its card; no setting of the "
                "conversion changes it",
            )
        if result.under_determined is not None:
            raise GateRejected(
                f"attack `{result.attack}` is under-determined and bears out nothing: {result.under_determined}",
                "raise `audit.samples`, or take the attack off `audit.attacks`",
            )
    if record.skipped:
        raise GateRejected("`audit.policy: block` is set, and no attack was run", "name attacks in `audit.attacks`")
