"""What a bundle states of its audit: round bounds well above every time measured, equal from run to run.

Where it may state what was timed, that stands beside them: a bound alone flatters what is left of the slowdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taylor_ops.audit import AuditRecord
from taylor_ops.audit.result import AttackResult, Timed
from taylor_ops.audit.wording import conclusion, in_words, left_in_words
from taylor_ops.presentation.wording import figure

_SECONDS = (600, 36_000)
_SECONDS_MARGIN = 3
# A rebuilt model has the shapes of the original: what is measured lies near 1, and no bound changes near there.
_RESIDUALS = (1.5, 3.0, 10.0, 30.0)
# A compiled bundle may keep all of a target slowdown: bounds change at 1.25, 7 and 22.5, between round targets.
_COMPILED = (1.5, 8.4, 27.0)
_SLOWDOWN_MARGIN = 1.2
_LOSS_DECIMALS = 2


def claims(record: AuditRecord, measured: bool = False) -> dict[str, Any]:
    """The audit as manifest and card have it. measured: with what was timed, which differs from run to run."""
    attacks = [_claim(attack, measured) for attack in record.attacks]
    known = [_known(attack) for attack in attacks]
    stated = {
        "skipped": record.skipped,
        "attacks": known,
        "not_run": record.not_run,
        "in_words": conclusion(attacks),
    }
    if record.compiled is not None:
        alone, both = (_bound(timed, _COMPILED) for timed in (record.compiled.alone, record.compiled.both))
        stated["compiled"] = {"alone_at_most": alone, "both_at_most": both}
    return stated | ({"measured": _measured(record)} if measured else {})


def _measured(record: AuditRecord) -> dict[str, Any]:
    """What is left of the slowdown as it was timed; without what was not."""
    compiled = {} if record.compiled is None else {"compiled": record.compiled.plain()}
    residuals = {attack.attack: attack.rebuilt.residual for attack in record.attacks if attack.rebuilt is not None}
    return compiled | {"rebuilt": {name: timed.plain() for name, timed in residuals.items() if timed is not None}}


def _known(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim without what the attack does not tell."""
    silent = ("under_determined", "intervals_found", "intervals_asked", "task", "rebuilt")
    return {name: value for name, value in claim.items() if name not in silent or value is not None}


def _claim(attack: AttackResult, measured: bool) -> dict[str, Any]:
    claim = attack.plain()
    claim.pop("peak_rss_bytes")
    seconds = claim.pop("seconds")
    bound = next((limit for limit in _SECONDS if seconds * _SECONDS_MARGIN <= limit), None)
    if attack.task is not None:
        claim["task"] = {
            name: round(value, _LOSS_DECIMALS) if name.startswith("loss") else value
            for name, value in claim["task"].items()
        }
    residual = None
    if attack.rebuilt is not None:
        claim["rebuilt"].pop("residual")
        timed = attack.rebuilt.residual
        if timed is not None:
            claim["rebuilt"]["slowdown_at_most"] = at_most = _bound(timed, _RESIDUALS)
            residual = left_in_words(timed) if measured else _bound_in_words(at_most)
    within = "after longer than any bound stated here" if bound is None else f"in at most {bound} seconds"
    return claim | {"seconds_at_most": bound, "in_words": in_words(claim, within, residual)}


def _bound_in_words(at_most: float | None) -> str:
    if at_most is None:
        return "longer than any bound stated here beside"
    return f"at most {figure(at_most)} times as long as"


def _bound(timed: Timed, limits: Sequence[float]) -> float | None:
    """A round bound on a slowdown, None where it is above all of them."""
    return next((limit for limit in limits if max(timed.slowdown * _SLOWDOWN_MARGIN, timed.ci95[1]) <= limit), None)
