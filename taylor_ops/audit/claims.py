"""What a bundle states of its audit: round bounds well above every time measured, equal from run to run."""

from __future__ import annotations

from typing import Any

from taylor_ops.audit import AuditRecord
from taylor_ops.audit.result import AttackResult, Timed
from taylor_ops.audit.wording import conclusion, in_words
from taylor_ops.wording import figure

_SECONDS = (600, 36_000)
_SECONDS_MARGIN = 3
_SLOWDOWNS = (1.5, 3.0, 10.0, 30.0)
_SLOWDOWN_MARGIN = 1.2


def claims(record: AuditRecord) -> dict[str, Any]:
    """The audit as manifest and card have it."""
    attacks = [_claim(attack) for attack in record.attacks]
    known = [_known(attack) for attack in attacks]
    stated = {"skipped": record.skipped, "attacks": known, "in_words": conclusion(attacks)}
    if record.compiled is not None:
        alone, both = _bound(record.compiled.alone), _bound(record.compiled.both)
        stated["compiled"] = {"alone_at_most": alone, "both_at_most": both}
    return stated


def _known(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim without what the attack does not tell."""
    silent = ("under_determined", "intervals_found", "rebuilt")
    return {name: value for name, value in claim.items() if name not in silent or value is not None}


def _claim(attack: AttackResult) -> dict[str, Any]:
    claim = attack.plain()
    claim.pop("peak_rss_bytes")
    seconds = claim.pop("seconds")
    bound = next((limit for limit in _SECONDS if seconds * _SECONDS_MARGIN <= limit), None)
    residual = None
    if attack.rebuilt is not None:
        claim["rebuilt"].pop("residual")
        claim["rebuilt"]["slowdown_at_most"] = residual = _bound(attack.rebuilt.residual)
    within = "after longer than any bound stated here" if bound is None else f"in at most {bound} seconds"
    words = in_words(claim, within, None if residual is None else f"at most {figure(residual)} times")
    return claim | {"seconds_at_most": bound, "in_words": words}


def _bound(timed: Timed | None) -> float | None:
    """A round bound on a slowdown, None where it was not timed or is above all of them."""
    if timed is None:
        return None
    return next((limit for limit in _SLOWDOWNS if max(timed.slowdown * _SLOWDOWN_MARGIN, timed.ci95[1]) <= limit), None)
