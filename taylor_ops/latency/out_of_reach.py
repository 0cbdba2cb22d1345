"""The error for an unreachable target slowdown, and the settings that would make it reachable."""

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
    """The error for a target that is rejected before anything is measured for it.

    Args:
        latency: The target, and the plan if the config names one.
        reachable: Estimated slowdowns of the cheapest and of the dearest plan.
        conversion: The settings that decide the orders.
        activation: The activation of the original.
        by_bytes: Whether the estimates rest on bytes alone, because nothing was timed.
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
    """The settings that bring a target within reach. They differ with what decides the orders."""
    move_target = "set `latency.target_slowdown` inside this range"
    protect_fewer = f"lower `conversion.min_protected` from {conversion.min_protected:g}"
    if activation.degree is not None:
        return (
            f"{move_target}, or {protect_fewer} for a lower slowdown; no setting gives more, because "
            f"`{activation.name}` is exact at one order"
        )
    if conversion.order is not None:
        shorten = f"lower `conversion.order` from {conversion.order}, leave it out"
    else:
        shorten = (
            f"loosen `conversion.tolerance` from {conversion.tolerance:g}, "
            f"narrow `conversion.range_margin` from {conversion.range_margin:g}"
        )
    return (
        f"{move_target}; for a lower slowdown {shorten} or {protect_fewer}; "
        f"for a higher one raise `conversion.max_order` from {conversion.max_order}"
    )
