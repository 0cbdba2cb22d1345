"""A target out of reach: the remedy names the settings that move the slowdowns of this model, and no other."""

from __future__ import annotations

import re

import pytest

from taylor_ops.config.conversion import Conversion
from taylor_ops.config.latency import Latency
from taylor_ops.latency.out_of_reach import out_of_reach, remedy_out_of_reach
from taylor_ops.series.activations import activation_named


@pytest.mark.parametrize(
    ("activation", "order", "moving"),
    [
        ("silu", None, {"tolerance", "range_margin", "min_protected", "max_order"}),
        ("silu", 4, {"order", "min_protected", "max_order"}),
        ("relu", None, {"min_protected"}),
        ("relu2", 2, {"min_protected"}),
    ],
)
def test_the_remedy_names_what_moves_slowdowns_and_nothing_else(
    activation: str, order: int | None, moving: set[str]
) -> None:
    remedy = remedy_out_of_reach(Conversion(order=order), activation_named(activation))
    assert remedy.startswith("set `latency.target_slowdown` inside")
    assert set(re.findall(r"`conversion\.(\w+)`", remedy)) == moving
    assert ("no setting gives more" in remedy) == ("max_order" not in moving)


@pytest.mark.parametrize(
    ("protected", "by_bytes", "end"),
    [
        (1.0, False, "about 1.50 to 8.00 can, all neurons protected"),
        (1.0, True, "about 1.50 to 8.00 can, all neurons protected, going by bytes alone"),
        (0.9, False, "about 1.50 to 8.00 can, at least 90.0% of neurons protected"),
    ],
)
def test_the_refusal_says_what_is_within_reach_and_on_what_that_rests(
    protected: float, by_bytes: bool, end: str
) -> None:
    conversion = Conversion(min_protected=protected)
    refusal = out_of_reach(Latency(target_slowdown=9), (1.5, 8.0), conversion, activation_named("gelu"), by_bytes)
    assert refusal.cause == f"target slowdown 9 cannot be reached: {end}"
    assert refusal.remedy == remedy_out_of_reach(conversion, activation_named("gelu"))


def test_where_the_plan_is_named_it_is_what_the_refusal_is_about() -> None:
    latency = Latency(target_slowdown=9, columns=1200)
    refusal = out_of_reach(latency, (2.0, 2.0), Conversion(), activation_named("silu"), by_bytes=False)
    assert refusal.cause.endswith("about 2.00 can, by the plan of `latency.columns` 1,200")
    assert "leave `latency.columns` out" in refusal.remedy
