"""The gate of the audit: `audit.policy: block` stops a release if an attack recovers too much of it."""

from __future__ import annotations

from taylor_ops.audit.record import AuditRecord
from taylor_ops.config.audit import Audit
from taylor_ops.errors import GateRejected
from taylor_ops.presentation.wording import percent


def require_allowed(record: AuditRecord, settings: Audit) -> None:
    """Check the attacks against their thresholds if the policy is `block`.

    An attack that could not determine all weights rejects the release: a lack of samples must not open the gate.

    Raises:
        GateRejected: An attack recovered too much, or could not determine all weights, or no attack was run. The error
            names attack, figure and threshold.
    """
    if settings.policy != "block":
        return
    for result in record.attacks:
        threshold = float(getattr(settings.thresholds, result.attack))
        if result.recovered_1pct > threshold:
            raise GateRejected(
                f"attack `{result.attack}` recovers {percent(result.recovered_1pct)} of the protected weights to "
                f"within 1 %, more than the {percent(threshold)} of `audit.thresholds.{result.attack}`",
                "`audit.policy: disclose` publishes the release with this figure on its card; no setting of the "
                "conversion changes it",
            )
        if result.under_determined is not None:
            raise GateRejected(
                f"attack `{result.attack}` is under-determined and proves nothing: {result.under_determined}",
                "raise `audit.samples`, or take the attack off `audit.attacks`",
            )
    if record.skipped:
        raise GateRejected("`audit.policy: block` is set, but no attack was run", "name attacks in `audit.attacks`")
