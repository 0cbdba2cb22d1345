"""What a trace found, in lines for a person."""

from __future__ import annotations

from taylor_ops.evidence.trace import NAMED_BELOW, Traced
from taylor_ops.presentation.wording import count, figure, fixed, percent


def told(found: Traced) -> str:
    """Who is named with which p-value, or no evidence; then what it rests on."""
    lines = [
        f"{one.recipient} {one.version}: p {probability(one.log10_p)} (z {fixed(one.z, 1)})" for one in found.named
    ]
    copies = "copy" if found.candidates == 1 else "copies"
    share = percent(found.weights / found.weights_total)
    return "\n".join(
        [
            *(lines or ["no evidence"]),
            f"asked about {count(found.candidates)} {copies}; p is at least the chance that any of them looks "
            f"like this where none has a part in these weights; named below {figure(NAMED_BELOW)}",
            f"{count(found.weights)} output weights of the original were found ({share}), in {count(found.layers)} of "
            f"{count(found.layers_total)} MLPs",
        ]
    )


def probability(log10_p: float) -> str:
    """A p-value by its logarithm: it may be smaller than a number can be."""
    if log10_p < -300:
        return f"< 1e{int(log10_p) + 1}"
    return f"= {figure(10**log10_p)}"
