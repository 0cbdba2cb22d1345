"""What an audit found, in plain words for the card and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taylor_ops.wording import count, figure, percent

_NEARLY_ALL = 0.9


def in_words(attack: Mapping[str, Any], within: str, residual: str | None) -> str:
    """One attack as sentences.

    attack: the fields of an `AttackResult`. within: how long it took, such as `in 14 s`. residual: what is left of the
    slowdown with the rebuilt model, such as `1.01 times`; None where that was not timed.
    """
    words = (
        f"Whoever runs it gets {percent(attack['recovered_1pct'])} of the withheld weights back to within 1 % of their "
        f"neuron's root mean square, {within}."
    )
    if attack["under_determined"] is not None:
        words += f" It could not tell all of them ({attack['under_determined']}): more data may give more."
    if attack["intervals_found"] is not None:
        words += (
            " Were the intervals of the series, and biases in their centres, not stated, the terms alone would still "
            f"give away those of {percent(attack['intervals_found'])} of the neurons."
        )
    rebuilt = attack["rebuilt"]
    if rebuilt is not None:
        words += (
            f" Put back into the original architecture they are a model that continues "
            f"{count(rebuilt['prompts_equal'])} of {count(rebuilt['prompts'])} held-out prompts with the original's "
            f"tokens (KL {figure(rebuilt['kl_mean'])} nats per token)"
        )
        words += (
            ", whose speed was not measured." if residual is None else f" and takes {residual} as long as the original."
        )
    return words


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
