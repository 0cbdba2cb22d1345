"""How results are told in sentences that stand alone, alike on the card, in gates and in the report."""

from __future__ import annotations

import re

from taylor_ops.presentation.wording import count, figure, fixed, percent


def recovered_in_words(share: float) -> str:
    """What an attack gets, as part of a sentence."""
    return f"an attacker recovers {percent(share)} of the weights, errors under 1 %"


def equal_in_words(equal: int, prompts: int) -> str:
    """On how many held-out prompts the tokens are equal, as part of a sentence."""
    return f"{'all' if equal == prompts else f'{count(equal)} of'} {count(prompts)} held-out prompts"


def band_in_words(target: float, tolerance: float) -> str:
    """Between which slowdowns a target is met."""
    return f"{fixed(target * (1 - tolerance), 2)} to {fixed(target * (1 + tolerance), 2)}"


def device_in_words(device: str) -> str:
    """The description of a device. Records keep the plural, because it is one of the inputs of stages."""
    return re.sub(r"\b1 threads$", "1 thread", str(device))


def headline(
    equal: int, prompts: int, slowdown: float, target: float, tolerance: float, size: float, recovered: float | None
) -> str:
    """What came out of a release, in the words with which everything about it begins.

    Args:
        equal: Number of held-out prompts that the bundle continues with the tokens of the original.
        prompts: Number of all held-out prompts.
        slowdown: Measured time per token over that of the original.
        target: The slowdown that was asked for.
        tolerance: How far the slowdown may be from the target, relative.
        size: Bytes of the bundle over those of the original.
        recovered: Share of the protected weights that the best attack got back. None if no attack was run.
    """
    audit = (
        "The audit was skipped: no attack was tried."
        if recovered is None
        else f"The audit recovered {percent(recovered)} of the protected weights."
    )
    return (
        f"The bundle generated the same tokens as the original on {count(equal)} of {count(prompts)} held-out prompts "
        f"and takes {fixed(slowdown, 2)} times as long per token (target {figure(target, 3)} within "
        f"{percent(tolerance)}). It has {fixed(size, 1)} times the bytes of the original. {audit}"
    )
