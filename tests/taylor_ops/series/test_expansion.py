"""Expansions: coefficients against mpmath, the promised error on the interval, and the recurrence that evaluates."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops.config.conversion import Basis
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.expansion import Expansion, coefficients, evaluate, fit, intervals, offsets, orders_for, signs
from tests.support.exact_activations import ORACLES, exact_chebyshev

SATURATION = torch.tensor(14.0, dtype=torch.float64)
MAX_ORDER = 64
BASES: tuple[Basis, ...] = ("chebyshev", "taylor")
NAMES = ("silu", "gelu", "gelu_new", "quick_gelu")
ends = st.floats(-20, 20, allow_subnormal=False)
ranges = st.lists(st.tuples(ends, ends).map(sorted), min_size=1, max_size=6)
margins = st.floats(0, 4)
tolerances = st.floats(-9, -1).map(lambda exponent: float(10**exponent))


def columns(captured: list[Any]) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor(captured, dtype=torch.float64).T
    return low, high


def points_between(count: int = 401) -> Tensor:
    """Points of [-1, 1] with both ends, denser towards them, as [count, 1]."""
    return torch.cos(torch.linspace(0, torch.pi, count, dtype=torch.float64))[:, None]


def sampled_error(name: str, expansion: Expansion, orders: Tensor) -> tuple[Tensor, Tensor]:
    """Largest error [F] of the truncated series on the interval, and what float64 adds to it by rounding [F]."""
    t = points_between()
    series = coefficients(expansion, orders)
    exact = ACTIVATIONS[name].value(expansion.center + expansion.radius * t)
    found = evaluate(expansion.basis, series, t)
    return (found - exact).abs().amax(0), 1e-12 + 4 * torch.finfo(torch.float64).eps * series.abs().sum(0)


def chebyshev_error(name: str, center: float, radius: float, orders: list[int]) -> float:
    """Largest error of the coefficients of T_n, relative to the largest of the series.

    A transform of float64 samples cannot be relative to each: they fall to 10^-20 of the largest, the samples are
    rounded at 10^-16. What the bundle computes is the sum, for which this measure is the one that counts.
    """
    with mpmath.workdps(50):
        function = ORACLES[ACTIVATIONS[name].name]
        exact = torch.tensor([float(c) for c in exact_chebyshev(function, center, radius, orders)], dtype=torch.float64)
    place = torch.tensor([center], dtype=torch.float64), torch.tensor([radius], dtype=torch.float64)
    found = fit(ACTIVATIONS[name], *place, "chebyshev").chebyshev[orders, 0]
    return float((found - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("center", "radius"), [(0.0, 14.0), (-3.25, 4.0), (5.0, 0.015625), (1.5, 9.0), (-12.0, 2.0), (6.0, 8.0)]
)
def test_chebyshev_coefficients_are_those_of_mpmath(name: str, center: float, radius: float) -> None:
    assert chebyshev_error(name, center, radius, [*range(65), *range(72, 161, 8)]) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_chebyshev_coefficients_on_the_widest_interval_of_any_release_are_those_of_mpmath(name: str) -> None:
    widest = float(ACTIVATIONS[name].saturation(torch.tensor(1e-10).double()))
    assert chebyshev_error(name, 0.0, widest, list(range(65))) < 1e-12


@pytest.mark.parametrize(("name", "series"), [("relu", [1.0, 1.0]), ("relu2", [1.5, 2.0, 0.5])])
@pytest.mark.parametrize("radius", [0.5, 3.0, 100.0])
def test_chebyshev_coefficients_right_of_a_kink_are_those_of_the_polynomial(
    name: str, series: list[float], radius: float
) -> None:
    place = torch.tensor([radius], dtype=torch.float64)
    found = fit(ACTIVATIONS[name], place, place, "chebyshev").chebyshev[:, 0]
    degree = len(series) - 1
    exact = torch.tensor(series, dtype=torch.float64) * radius**degree
    torch.testing.assert_close(found[: degree + 1], exact, rtol=1e-14, atol=0)
    assert not bool(found[degree + 1 :].any())


@pytest.mark.parametrize("basis", BASES)
@given(name=st.sampled_from(NAMES), captured=ranges, margin=margins, tolerance=tolerances)
@settings(deadline=None, max_examples=120)
def test_a_reachable_tolerance_is_kept_on_the_whole_interval(
    basis: Basis, name: str, captured: list[Any], margin: float, tolerance: float
) -> None:
    place = intervals(*columns(captured), margin, ACTIVATIONS[name].saturation(torch.tensor(tolerance / 10).double()))
    expansion = fit(ACTIVATIONS[name], *place, basis)
    orders = orders_for(expansion.errors, tolerance, MAX_ORDER)
    reachable = orders <= MAX_ORDER
    error, rounding = sampled_error(name, expansion, orders.clamp_max(MAX_ORDER))
    assert bool((error <= tolerance + rounding)[reachable].all())


@pytest.mark.parametrize("basis", BASES)
@given(name=st.sampled_from(NAMES), captured=ranges)
@settings(deadline=None, max_examples=50)
def test_the_bound_is_never_below_the_error_at_any_order(basis: Basis, name: str, captured: list[Any]) -> None:
    place = intervals(*columns(captured), 0.5, ACTIVATIONS[name].saturation(torch.tensor(1e-5).double()))
    expansion = fit(ACTIVATIONS[name], *place, basis)
    bound = expansion.errors
    for order in (1, 3, 8, 21, 64):
        error, rounding = sampled_error(name, expansion, torch.full((len(captured),), order))
        assert bool((error <= bound[order] + rounding).all()), order


@pytest.mark.parametrize("basis", BASES)
@given(name=st.sampled_from(NAMES), captured=ranges, tolerance=tolerances, max_order=st.integers(1, MAX_ORDER))
@settings(deadline=None, max_examples=30)
def test_orders_are_the_smallest_whose_bound_keeps_the_tolerance(
    basis: Basis, name: str, captured: list[Any], tolerance: float, max_order: int
) -> None:
    expansion = fit(ACTIVATIONS[name], *intervals(*columns(captured), 0.5, SATURATION), basis)
    bound = expansion.errors
    for neuron, order in enumerate(orders_for(expansion.errors, tolerance, max_order).tolist()):
        assert 1 <= order <= max_order + 1
        if order <= max_order:
            assert bound[order, neuron] <= tolerance
        if order > 1:
            assert bound[order - 1, neuron] > tolerance


@given(
    captured=st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)).map(sorted), min_size=1, max_size=6),
    margin=margins,
    saturation=st.floats(2.5, 40),
)
@example(captured=[[-50.0, -45.0], [45.0, 50.0], [3.0, 3.0]], margin=0.5, saturation=14.0)
@settings(deadline=None)
def test_an_interval_covers_its_widened_range_and_hardly_more(
    captured: list[Any], margin: float, saturation: float
) -> None:
    low, high = columns(captured)
    center, radius = intervals(low, high, margin, torch.tensor(saturation).double())
    width = high - low
    low = (low - margin * width).clamp(-saturation, saturation)
    # An interval ends no further left than at -2, or its terms would vanish with phi.
    high = (high + margin * width).clamp(-saturation, saturation).clamp_min(-2)
    assert bool((center - radius <= low + 1e-12).all())
    assert bool((center + radius >= high - 1e-12).all())
    # Rounding to eight binary digits is all that an interval may be too wide by.
    needed = torch.maximum((high - low) / 2 + center.abs() * 2.0**-8, torch.tensor(2.0**-6, dtype=torch.float64))
    assert bool((radius <= needed * (1 + 2.0**-6) + 2.0**-12).all())


@given(captured=ranges, margin=margins, saturation=st.floats(2.5, 40))
@example(captured=[[-1.0, 1.0 + 1e-7]], margin=0.0, saturation=16.0)
@settings(deadline=None)
def test_no_release_dtype_moves_an_interval(captured: list[Any], margin: float, saturation: float) -> None:
    for exact in intervals(*columns(captured), margin, torch.tensor(saturation).double()):
        assert torch.equal(exact.to(torch.bfloat16).double(), exact)
        assert torch.equal(exact.to(torch.float16).double(), exact)


@given(name=st.sampled_from(NAMES), low=st.floats(-12, 0), width=st.floats(8, 20), order=st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_economised_powers_equal_the_chebyshev_series(name: str, low: float, width: float, order: int) -> None:
    place = intervals(*columns([[low, low + width]]), 0.0, SATURATION)
    powers, plain = (fit(ACTIVATIONS[name], *place, basis) for basis in ("taylor", "chebyshev"))
    assert powers.taylor is not None
    if not bool(powers.taylor[0].isnan()):
        return
    orders = torch.tensor([order])
    in_powers, in_chebyshev = coefficients(powers, orders), coefficients(plain, orders)
    t = points_between()
    scale = float(in_powers.abs().sum())
    torch.testing.assert_close(
        evaluate("taylor", in_powers, t), evaluate("chebyshev", in_chebyshev, t), rtol=0, atol=1e-15 * scale
    )


@pytest.mark.parametrize("name", ["silu", "gelu_new", "quick_gelu"])
def test_the_own_taylor_series_is_used_only_inside_its_circle_of_convergence(name: str) -> None:
    center = torch.linspace(-8, 8, 9, dtype=torch.float64)
    limit = ACTIVATIONS[name].convergence_radius(center)
    near = fit(ACTIVATIONS[name], center, limit / 4, "taylor")
    own = ACTIVATIONS[name].taylor(center, 8) * (limit / 4) ** torch.arange(9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(coefficients(near, torch.full((9,), 8)), own, rtol=1e-14, atol=0)
    beyond = fit(ACTIVATIONS[name], center, limit * 1.01, "taylor")
    assert beyond.taylor is not None
    assert bool(beyond.taylor.isnan().all())


@pytest.mark.parametrize("name", ["silu", "gelu_new", "quick_gelu"])
def test_an_own_series_that_converges_too_slowly_gives_way_to_one_that_does_not(name: str) -> None:
    center = torch.linspace(-4, 4, 9, dtype=torch.float64)
    radius = ACTIVATIONS[name].convergence_radius(center) * 0.95
    powers, plain = (fit(ACTIVATIONS[name], center, radius, basis) for basis in ("taylor", "chebyshev"))
    orders = orders_for(powers.errors, 1e-4, MAX_ORDER)
    assert int(orders.max()) <= MAX_ORDER
    assert torch.equal(orders, orders_for(plain.errors, 1e-4, MAX_ORDER))


def test_coefficients_above_the_order_of_a_neuron_are_zero() -> None:
    place = intervals(*columns([[-9.0, 8.0], [-1.0, 2.0], [0.0, 0.1]]), 0.5, SATURATION)
    orders = torch.tensor([7, 3, 1])
    for basis in BASES:
        series = coefficients(fit(ACTIVATIONS["silu"], *place, basis), orders)
        assert series.shape == (8, 3)
        for neuron, order in enumerate(orders.tolist()):
            assert bool((series[order + 1 :, neuron] == 0).all())
            assert bool((series[: order + 1, neuron] != 0).any())


series_of_any_length = st.lists(st.floats(-4, 4), min_size=1, max_size=40)


@given(series=series_of_any_length, t=st.floats(-1, 1))
def test_the_chebyshev_recurrence_equals_numpy_with_signs(series: list[float], t: float) -> None:
    pattern = [1, 1, -1, -1] * 10
    plain = [coefficient * sign for coefficient, sign in zip(series, pattern, strict=False)]
    plain[0] -= sum(series[2:5:2])
    found = evaluate("chebyshev", torch.tensor(series, dtype=torch.float64)[:, None], torch.tensor([t]).double())
    expected = np.polynomial.chebyshev.chebval(float(torch.tensor([t]).double()[0]), plain)
    assert float(found[0]) == pytest.approx(float(expected), abs=1e-11)


@given(series=series_of_any_length, t=st.floats(-1, 1, width=32))
def test_the_power_recurrence_equals_numpy(series: list[float], t: float) -> None:
    found = evaluate("taylor", torch.tensor(series, dtype=torch.float64)[:, None], torch.tensor([t]).double())
    assert float(found[0]) == pytest.approx(float(np.polynomial.polynomial.polyval(t, series)), abs=1e-11)


def test_signs_change_after_every_second_order() -> None:
    assert signs(10).tolist() == [1, 1, -1, -1, 1, 1, -1, -1, 1, 1]
    assert signs(10).dtype == torch.float64


def test_what_is_taken_off_orders_two_and_four_is_their_value_in_the_middle() -> None:
    assert offsets(7).tolist() == [0, 0, 1, 0, 1, 0, 0]
    middle = torch.zeros(1, dtype=torch.float64)
    for order in range(1, 6):
        one = torch.eye(6, dtype=torch.float64)[order][:, None]
        assert float(evaluate("chebyshev", one, middle)) == 0


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 12])
def test_the_term_of_order_zero_is_phi_in_the_middle_of_the_interval(order: int) -> None:
    expansion = fit(ACTIVATIONS["silu"], torch.tensor([0.75]).double(), torch.tensor([1.5]).double(), "chebyshev")
    orders = torch.tensor([order])
    middle = evaluate("chebyshev", coefficients(expansion, orders), torch.zeros(1).double())
    above = coefficients(expansion, orders)[6:].abs().sum()
    assert float(coefficients(expansion, orders)[0, 0]) == pytest.approx(float(middle[0]), abs=float(above) + 1e-15)
