"""What a bundle states of its audit: round bounds well above every measured time, the same in every run.

If the bundle may state measured times, it states them beside the bounds: a bound alone flatters what is left of the
slowdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taylor_ops.attacks.record import Task
from taylor_ops.audit.record import AttackResult, AuditRecord, Timed
from taylor_ops.presentation.wording import count, figure, fixed, percent

_SECONDS = (600, 36_000)
_SECONDS_MARGIN = 3
# A rebuilt model has the shapes of the original, so it measures near 1, and no bound changes near 1.
_RESIDUALS = (1.5, 3.0, 10.0, 30.0)
# A compiled bundle may keep all of a target slowdown. Bounds change at 1.25, 7 and 22.5, between round targets.
_COMPILED = (1.5, 8.4, 27.0)
_SLOWDOWN_MARGIN = 1.2
_LOSS_DECIMALS = 2


def claims(record: AuditRecord, measured: bool = False) -> dict[str, Any]:
    """The audit as manifest and card state it.

    Args:
        record: What the audit found.
        measured: Whether to add the measured times, which differ from run to run.
    """
    attacks = [_claim(attack, measured) for attack in record.attacks]
    stated = {
        "skipped": record.skipped,
        "attacks": [_without_unanswered(attack) for attack in attacks],
        "not_run": record.not_run,
        "in_words": conclusion(attacks),
    }
    if record.compiled is not None:
        alone, both = (_bound(timed, _COMPILED) for timed in (record.compiled.alone, record.compiled.both))
        stated["compiled"] = {"alone_at_most": alone, "both_at_most": both}
    return stated | ({"measured": _measured(record)} if measured else {})


def _measured(record: AuditRecord) -> dict[str, Any]:
    """The timings of what is left of the slowdown, as far as it was timed."""
    compiled = {} if record.compiled is None else {"compiled": record.compiled.plain()}
    residuals = {attack.attack: attack.rebuilt.residual for attack in record.attacks if attack.rebuilt is not None}
    return compiled | {"rebuilt": {name: timed.plain() for name, timed in residuals.items() if timed is not None}}


def _without_unanswered(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim without the optional fields that the attack does not answer."""
    optional = ("under_determined", "intervals_found", "intervals_asked", "task", "rebuilt")
    return {name: value for name, value in claim.items() if name not in optional or value is not None}


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
    within = "which takes longer than any bound stated here" if bound is None else f"in at most {bound} seconds"
    return claim | {"seconds_at_most": bound, "in_words": in_words(claim, within, residual)}


def _bound_in_words(at_most: float | None) -> str:
    if at_most is None:
        return "longer, compared with the original, than any bound stated here"
    return f"at most {figure(at_most)} times as long as the original"


def _bound(timed: Timed, limits: Sequence[float]) -> float | None:
    """A round bound on a slowdown; None if the slowdown is above all of `limits`."""
    return next((limit for limit in limits if max(timed.slowdown * _SLOWDOWN_MARGIN, timed.ci95[1]) <= limit), None)


_NEARLY_ALL = 0.9


_BY_CHANCE = 0.02


def in_words(attack: Mapping[str, Any], within: str, residual: str | None) -> str:
    """One attack in sentences.

    Args:
        attack: The fields of an `AttackResult`.
        within: How long it took, such as `in 14 s`.
        residual: What is left of the slowdown with the rebuilt model, such as `1.01 times as long as the original`.
            None if it was not timed.
    """
    words = (
        f"Whoever runs it gets {percent(attack['recovered_1pct'])} of the protected weights back to within 1 % of "
        f"their neuron's root mean square, {within}."
    )
    if attack["under_determined"] is not None:
        words += f" It could not determine all of them ({attack['under_determined']}); more data may give more."
    words += _interval_words(attack["intervals_found"], attack["intervals_asked"])
    if attack["task"] is not None:
        words += _task_words(Task(**attack["task"]), attack["recovered_1pct"])
    rebuilt = attack["rebuilt"]
    if rebuilt is not None:
        words += (
            f" Put back into the original architecture, they give a model that continues "
            f"{count(rebuilt['prompts_equal'])} of {count(rebuilt['prompts'])} held-out prompts with the original's "
            f"tokens (KL {figure(rebuilt['kl_mean'])} nats per token)"
        )
        words += ". Its speed was not measured." if residual is None else f" and takes {residual}."
    return words


def left_in_words(timed: Timed) -> str:
    """What was measured of the slowdown that is left, as `in_words` takes it."""
    low, high = (fixed(end, 2) for end in timed.ci95)
    noisy = "" if timed.settled else "; the machine was too noisy for a narrower one"
    return f"{fixed(timed.slowdown, 2)} times (95 % interval {low} to {high}{noisy}) as long as the original"


def _interval_words(found: float | None, findable: float | None) -> str:
    if findable == 0:
        return (
            " This attack cannot say what hiding the intervals of the series would hide. With a kinked activation, an "
            "interval only scales the terms. With orders below 4, there are too few terms to determine it."
        )
    if found is None:
        return ""
    neurons = (
        "the neurons"
        if findable in (None, 1)
        else f"the {percent(findable or 0.0)} of the neurons that have order 4 or more"
    )
    return (
        " If the bundle did not state the intervals of the series, and biases in their centres, the terms alone would "
        f"still give them away for {percent(found)} of {neurons}."
    )


def _task_words(task: Task, recovered: float) -> str:
    words = (
        f" On {count(task.tokens_held_out)} held-out tokens of its text, the loss goes from "
        f"{fixed(task.loss_before, 2)} with random weights to {fixed(task.loss_after, 2)} nats per token; the original "
        f"has {fixed(task.loss_original, 2)}. This wins back {percent(task.regained)} of what random weights lose."
    )
    return words + (
        " To that extent it has learned the task, but not the weights: a guess is as near to them."
        if recovered <= _BY_CHANCE
        else ""
    )


def conclusion(attacks: Sequence[Mapping[str, Any]]) -> str:
    """What all attacks together mean for someone who relies on the protection. It says nothing of attacks not run."""
    if not attacks:
        return (
            "No attack was run, so nothing shows that the protected weights are hard to recover. Assume that they can "
            "be recovered."
        )
    best = max(attack["recovered_1pct"] for attack in attacks)
    if best >= _NEARLY_ALL:
        return (
            f"Someone who knows the attack gets the protected weights back ({percent(best)} to within 1 %), and with "
            "them a model as fast as the original. The scheme slows honest users and deters; it does not keep a secret."
        )
    return (
        f"The best of these attacks got {percent(best)} of the protected weights back to within 1 %. That is what was "
        "tried, not a limit: others may recover more, and with the weights comes a model as fast as the original. The "
        "scheme slows honest users and deters; it does not keep a secret."
    )
