"""What to say where a target slowdown is out of reach, and which settings move the slowdowns that are within."""

from __future__ import annotations

from taylor_ops.config.conversion import Conversion
from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput
from taylor_ops.series.activations import Activation


def out_of_reach(
    latency: Latency,
    reachable: tuple[float, float],
    conversion: Conversion,
    activation: Activation,
    by_bytes: bool,
) -> BadInput:
    """The refusal of a target before anything is measured for it.

    reachable: estimated slowdowns of the cheapest and of the dearest plan. by_bytes: whether nothing was timed.
    """
    low, high = reachable
    basis = ", going by bytes alone" if by_bytes else ""
    begin = f"target slowdown {latency.target_slowdown:g} cannot be reached: about {low:.2f}"
    if latency.columns is not None:
        return BadInput(
            f"{begin} can, by the plan of `latency.columns` {latency.columns:,}{basis}",
            "leave `latency.columns` out, or set `latency.target_slowdown` to what that plan gives",
        )
    share = "all" if conversion.min_protected == 1 else f"at least {conversion.min_protected:.1%} of"
    return BadInput(
        f"{begin} to {high:.2f} can, {share} neurons protected{basis}", remedy_out_of_reach(conversion, activation)
    )


def remedy_out_of_reach(conversion: Conversion, activation: Activation) -> str:
    """The settings that bring a target within reach: which ones move slowdowns differs with what decides the orders."""
    inside = "set `latency.target_slowdown` inside"
    fewer = f"lower `conversion.min_protected` from {conversion.min_protected:g}"
    if activation.degree is not None:
        return f"{inside}, or for less {fewer}; no setting gives more: `{activation.name}` is exact at one order"
    if conversion.order is not None:
        less = f"lower `conversion.order` from {conversion.order}, leave it out"
    else:
        less = (
            f"loosen `conversion.tolerance` from {conversion.tolerance:g}, "
            f"narrow `conversion.range_margin` from {conversion.range_margin:g}"
        )
    return f"{inside}; for less {less} or {fewer}, for more raise `conversion.max_order` from {conversion.max_order}"
