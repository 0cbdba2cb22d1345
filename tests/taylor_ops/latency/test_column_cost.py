"""Slowdowns on a line over columns: what is fixed is told from what columns cost, and intervals become bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taylor_ops.latency import column_cost as costs
from taylor_ops.latency.column_cost import LEAST_COST, ORIGINAL, Cost, TimedPlan, costs_of, read_share


def timed(cost: Cost, extra: float, spread: float = 0.0) -> TimedPlan:
    slowdown = cost.slowdown(extra)
    return TimedPlan(extra, slowdown, slowdown * (1 - spread), slowdown * (1 + spread))


@given(fixed=st.floats(0, 5), per_column=st.floats(1e-5, 1e-2), few=st.floats(500, 5000), times=st.floats(2, 4))
def test_two_plans_tell_what_is_fixed_from_what_columns_cost(
    fixed: float, per_column: float, few: float, times: float
) -> None:
    truth = Cost(per_column, fixed)
    found, (flattest, steepest) = costs_of(timed(truth, few), timed(truth, times * few))
    for extra in (0, few, 20 * few):
        for cost in (found, flattest, steepest):
            assert cost.slowdown(extra) == pytest.approx(truth.slowdown(extra), abs=LEAST_COST, rel=LEAST_COST)


def test_one_plan_gives_all_of_its_cost_to_the_columns() -> None:
    found, (flattest, steepest) = costs_of(ORIGINAL, TimedPlan(100, 3.0, 2.8, 3.4))
    assert found == Cost(pytest.approx(0.02), pytest.approx(0))
    assert [cost.slowdown(200) for cost in (flattest, found, steepest)] == pytest.approx([4.6, 5.0, 5.8])


@given(
    cheap=st.floats(0.5, 5),
    dear=st.floats(0.5, 20),
    spread=st.floats(0, 0.3),
    times=st.floats(2, 4),
    beyond=st.floats(1, 10),
)
def test_no_column_and_nothing_fixed_costs_less_than_nothing_and_bounds_enclose_what_was_found(
    cheap: float, dear: float, spread: float, times: float, beyond: float
) -> None:
    few, many = 100.0, 100.0 * times
    found, bounds = costs_of(
        TimedPlan(few, cheap, cheap * (1 - spread), cheap * (1 + spread)),
        TimedPlan(many, dear, dear * (1 - spread), dear * (1 + spread)),
    )
    assert all(cost.fixed >= 0 and cost.per_column > 0 for cost in (found, *bounds))
    low, high = (cost.slowdown(beyond * many) for cost in bounds)
    assert low <= found.slowdown(beyond * many) * (1 + 1e-9)
    assert found.slowdown(beyond * many) <= high * (1 + 1e-9)


def test_columns_and_slowdowns_are_turned_into_one_another() -> None:
    cost = Cost(0.01, 0.5)
    assert cost.slowdown(150) == pytest.approx(3.0)
    assert cost.extra(3.0) == pytest.approx(150)
    assert cost.extra(1.2) < 0


def test_terms_are_expected_to_be_read_faster_only_where_all_cores_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(costs, "READS_IN_PIECES", True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    shared, one_product = read_share(torch.float32, cpu), read_share(torch.bfloat16, cpu)
    assert shared < one_product < 1
    assert read_share(torch.float32, gpu) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert read_share(torch.float32, cpu) == one_product
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(costs, "READS_IN_PIECES", False)
    assert read_share(torch.float32, cpu) == one_product
