"""Activations: values, Taylor coefficients, radii of convergence and saturation, against mpmath and transformers."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.activations import ACT2FN

from taylor_ops.errors import BadInput
from taylor_ops.series.activations import ACTIVATIONS, Activation, activation_named
from tests.support.exact_activations import CUBIC, ORACLES, exact_taylor

HIGHEST_ORDER = 64
DISTINCT = {activation.name: activation for activation in ACTIVATIONS.values()}
NAMES = sorted(name for name, activation in DISTINCT.items() if activation.degree is None)
KINKED = {"relu": 1, "relu2": 2}
centers = st.floats(-10, 10, allow_subnormal=False)


def one(center: float) -> torch.Tensor:
    return torch.tensor([center], dtype=torch.float64)


def envelope(coefficients: list[Any], n: int) -> Any:
    """The size of coefficient n among its neighbours: its own, or a geometric mean of two on either side.

    Coefficients change their sign every few orders, and float64 cannot be relative to one that is nearly zero.
    """
    pairs = [(n - d, n + d) for d in (1, 2) if d <= n]
    return max([abs(coefficients[n]), *(mpmath.sqrt(abs(coefficients[i] * coefficients[j])) for i, j in pairs)])


def worst_error(activation: Activation, center: float) -> float:
    """Largest error of a Taylor coefficient of order 0 .. 64 relative to its envelope, which is at least its own size.

    The envelope is that of phi without its asymptote: on the right phi is the identity and a little, and the little
    counts here. What of it lies below the 60 digits of the oracle does not count.
    """
    with mpmath.workdps(60):
        radius = mpmath.mpf(min(float(activation.convergence_radius(one(center))[0]), 6.0))
        exact = exact_taylor(ORACLES[activation.name], center, radius / 2, HIGHEST_ORDER + 2)
        gap = list(exact)
        if center > 0:
            gap[0], gap[1] = gap[0] - center, gap[1] - 1
        noise = max(abs(value) * (radius / 2) ** k for k, value in enumerate(exact)) * mpmath.mpf(10) ** -45
        found = activation.taylor(one(center), HIGHEST_ORDER)[:, 0].tolist()
        return max(
            float(
                abs(mpmath.mpf(found[n]) - exact[n])
                / (max(abs(exact[n]), envelope(gap, n)) + noise / (radius / 2) ** n)
            )
            for n in range(HIGHEST_ORDER + 1)
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("center", [-10.0, -6.5, -3.3, -1.2784645, 0.0, 1e-9, 0.7, math.sqrt(2), 5.0, 10.0])
def test_taylor_coefficients_to_order_64_are_those_of_mpmath(name: str, center: float) -> None:
    assert worst_error(DISTINCT[name], center) < 1e-12


@pytest.mark.parametrize("name", NAMES)
@given(center=centers)
@settings(deadline=None, max_examples=15)
def test_taylor_coefficients_are_those_of_mpmath_about_any_center(name: str, center: float) -> None:
    assert worst_error(DISTINCT[name], center) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_of_a_low_order_are_the_first_of_a_high_one(name: str) -> None:
    points = torch.linspace(-6, 6, 25, dtype=torch.float64)
    high = DISTINCT[name].taylor(points, 12)
    assert high.shape == (13, 25)
    for order in range(6):
        low = DISTINCT[name].taylor(points, order)
        assert low.shape == (order + 1, 25)
        torch.testing.assert_close(low, high[: order + 1], rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", NAMES)
@given(z=st.floats(-40, 40))
@settings(deadline=None, max_examples=200)
def test_values_are_those_of_mpmath(name: str, z: float) -> None:
    with mpmath.workdps(60):
        exact = float(ORACLES[name](mpmath.mpf(z)))
    assert float(DISTINCT[name].value(one(z))[0]) == pytest.approx(exact, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_are_those_of_transformers_under_every_name(name: str) -> None:
    z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    # gelu_fast writes sqrt(2 / pi) with ten digits.
    torch.testing.assert_close(ACTIVATIONS[name].value(z), ACT2FN[name](z), rtol=1e-9, atol=1e-10)


@given(center=centers)
def test_silu_and_quick_gelu_converge_up_to_their_nearest_poles_on_the_imaginary_axis(center: float) -> None:
    assert float(DISTINCT["silu"].convergence_radius(one(center))[0]) == pytest.approx(math.hypot(center, math.pi))
    nearest = math.hypot(center, math.pi / 1.702)
    assert float(DISTINCT["quick_gelu"].convergence_radius(one(center))[0]) == pytest.approx(nearest)


@given(center=centers)
def test_gelu_converges_everywhere(center: float) -> None:
    assert math.isinf(DISTINCT["gelu"].convergence_radius(one(center))[0])


@pytest.fixture(scope="module")
def gelu_tanh_poles() -> list[complex]:
    """Zeros of cosh(sqrt(2/pi) (z + 0.044715 z^3)) in the upper half plane, three for each odd multiple of i pi/2."""
    poles = []
    with mpmath.workdps(30):
        scale = mpmath.sqrt(2 / mpmath.pi)
        for k in range(-64, 64):
            multiple = mpmath.mpc(0, mpmath.pi * (k + mpmath.mpf(1) / 2)) / scale
            found = mpmath.polyroots([CUBIC, 0, 1, -multiple], maxsteps=200, extraprec=60)
            assert all(abs(mpmath.cosh(scale * (z + CUBIC * z**3))) < 1e-20 for z in found)
            poles += [complex(z) for z in found if z.imag > 0]
    return poles


@given(center=centers)
@settings(deadline=None)
def test_gelu_tanh_converges_up_to_its_nearest_pole(gelu_tanh_poles: list[complex], center: float) -> None:
    nearest = min(abs(center - pole) for pole in gelu_tanh_poles)
    assert float(DISTINCT["gelu_tanh"].convergence_radius(one(center))[0]) == pytest.approx(nearest, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(exponent=st.floats(-12, -0.7), beyond=st.floats(0, 50))
@settings(deadline=None)
def test_outside_its_saturation_phi_is_within_tolerance_of_its_asymptotes(
    name: str, exponent: float, beyond: float
) -> None:
    activation, tolerance = DISTINCT[name], 10**exponent
    z = float(activation.saturation(torch.tensor(tolerance).double())) + beyond
    with mpmath.workdps(60):
        exact = ORACLES[name]
        assert abs(exact(mpmath.mpf(z)) - z) <= tolerance
        assert abs(exact(mpmath.mpf(-z))) <= tolerance


@pytest.mark.parametrize("name", NAMES)
@given(exponent=st.floats(-12, -1))
@settings(deadline=None)
def test_saturation_is_the_first_point_of_its_grid_that_is_near_enough(name: str, exponent: float) -> None:
    activation, tolerance = DISTINCT[name], 10**exponent
    saturation = float(activation.saturation(torch.tensor(tolerance).double()))
    assert saturation * 64 == int(saturation * 64)
    with mpmath.workdps(60):
        before = mpmath.mpf(saturation - 1 / 64)
        exact = ORACLES[name]
        assert max(abs(exact(before) - before), abs(exact(-before))) > tolerance * (1 - 1e-3)


@pytest.mark.parametrize(("name", "degree"), KINKED.items())
@given(center=st.floats(0.01, 100), step=st.floats(-1, 1))
def test_a_kinked_activation_is_its_polynomial_right_of_the_kink_and_nothing_left_of_it(
    name: str, degree: int, center: float, step: float
) -> None:
    activation, z = DISTINCT[name], center * (1 + step)
    series = activation.taylor(one(center), HIGHEST_ORDER)[:, 0].tolist()
    with mpmath.workdps(40):
        exact = [mpmath.binomial(degree, n) * mpmath.mpf(center) ** (degree - n) for n in range(degree + 1)]
        total = sum(mpmath.mpf(value) * (mpmath.mpf(z) - mpmath.mpf(center)) ** n for n, value in enumerate(series))
        assert abs(total - mpmath.mpf(z) ** degree) <= 1e-14 * center**degree
        assert all(abs(value - true) <= 1e-15 * true for value, true in zip(series, exact, strict=False))
    assert not any(series[degree + 1 :])
    assert activation.degree == degree
    assert float(activation.value(one(z))[0]) == float(activation.right(one(z))[0])
    assert float(activation.value(one(-z - 0.01))[0]) == 0


@pytest.mark.parametrize(("name", "degree"), KINKED.items())
def test_the_names_of_kinked_activations_are_those_of_the_known_ones(name: str, degree: int) -> None:
    assert {found for found, activation in ACTIVATIONS.items() if activation.degree is not None} == KINKED.keys()
    assert activation_named(name).degree == degree


def test_an_unknown_activation_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadInput) as caught:
        activation_named("mish")
    assert "`mish`" in caught.value.cause
    assert all(name in caught.value.cause for name in ACTIVATIONS)


def test_an_activation_is_found_under_each_of_its_names() -> None:
    assert activation_named("swish") is activation_named("silu")
    assert activation_named("gelu_new") is activation_named("gelu_pytorch_tanh")
    assert activation_named("gelu_new") is not activation_named("gelu")
