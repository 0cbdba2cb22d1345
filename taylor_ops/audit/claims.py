"""What a bundle states of its audit: round bounds well above every time measured, equal from run to run.

Where it may state what was timed, that stands beside them: a bound alone flatters what is left of the slowdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taylor_ops.attacks.record import Task
from taylor_ops.audit.record import AttackResult, AuditRecord, Timed
from taylor_ops.presentation.wording import count, figure, fixed, percent

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


_NEARLY_ALL = 0.9


_BY_CHANCE = 0.02


def in_words(attack: Mapping[str, Any], within: str, residual: str | None) -> str:
    """One attack as sentences.

    attack: the fields of an `AttackResult`. within: how long it took, such as `in 14 s`. residual: what is left of the
    slowdown with the rebuilt model, such as `1.01 times as long as`; None where that was not timed.
    """
    words = (
        f"Whoever runs it gets {percent(attack['recovered_1pct'])} of the withheld weights back to within 1 % of their "
        f"neuron's root mean square, {within}."
    )
    if attack["under_determined"] is not None:
        words += f" It could not tell all of them ({attack['under_determined']}): more data may give more."
    words += _of_the_intervals(attack["intervals_found"], attack["intervals_asked"])
    if attack["task"] is not None:
        words += _of_the_task(Task(**attack["task"]), attack["recovered_1pct"])
    rebuilt = attack["rebuilt"]
    if rebuilt is not None:
        words += (
            f" Put back into the original architecture they are a model that continues "
            f"{count(rebuilt['prompts_equal'])} of {count(rebuilt['prompts'])} held-out prompts with the original's "
            f"tokens (KL {figure(rebuilt['kl_mean'])} nats per token)"
        )
        words += ", whose speed was not measured." if residual is None else f" and takes {residual} the original."
    return words


def left_in_words(timed: Timed) -> str:
    """What was measured of the slowdown that is left, as `in_words` takes it."""
    low, high = (fixed(end, 2) for end in timed.ci95)
    noisy = "" if timed.settled else ", on a machine too noisy to tell better,"
    return f"{fixed(timed.slowdown, 2)} times (95 % interval {low} to {high}){noisy} as long as"


def _of_the_intervals(found: float | None, asked: float | None) -> str:
    if asked == 0:
        return (
            " What hiding the intervals of the series would hide is not told: with a kinked activation an interval "
            "only scales the terms, and with orders below 4 too few terms tell of it."
        )
    if found is None:
        return ""
    of = (
        "the neurons" if asked in (None, 1) else f"the {percent(asked or 0.0)} of the neurons that have order 4 or more"
    )
    return (
        " Were the intervals of the series, and biases in their centres, not stated, the terms alone would still give "
        f"away those of {percent(found)} of {of}."
    )


def _of_the_task(task: Task, recovered: float) -> str:
    words = (
        f" On {count(task.tokens_held_out)} held-out tokens of its text the loss goes from "
        f"{fixed(task.loss_before, 2)} with random weights to {fixed(task.loss_after, 2)} nats per token, where the "
        f"original has {fixed(task.loss_original, 2)}: that wins back {percent(task.regained)} of what random weights "
        "lose."
    )
    return words + (
        " It has learned the task, as far as that goes, and not the weights: a guess is as near to them."
        if recovered <= _BY_CHANCE
        else ""
    )


def conclusion(attacks: Sequence[Mapping[str, Any]]) -> str:
    """What all attacks together mean for whoever relies on the protection; nothing is said of attacks not run."""
    if not attacks:
        return (
            "No attack was run, so nothing bears out any protection. Assume that the withheld weights can be recovered."
        )
    best = max(attack["recovered_1pct"] for attack in attacks)
    if best >= _NEARLY_ALL:
        return (
            f"Someone who knows the attack gets the withheld weights back ({percent(best)} to within 1 %), and with "
            "them a model as fast as the original. The scheme slows honest users and deters; it does not keep a secret."
        )
    return (
        f"The best of these attacks got {percent(best)} of the withheld weights back to within 1 %. That is what was "
        "tried, not a limit: others may recover more, and with the weights comes a model as fast as the original. The "
        "scheme slows honest users and deters; it does not keep a secret."
    )
