"""The activations and their coefficients in mpmath, independent of the project: what float64 results are held against.

Everything runs in the precision of the caller, 40 digits or more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath

Oracle = Callable[[Any], Any]

CUBIC = mpmath.mpf("0.044715")
TAYLOR_NODES = 256
CHEBYSHEV_NODES = 720


def exactly_silu(z: Any) -> Any:
    return z / (1 + mpmath.exp(-z))


def exactly_quick_gelu(z: Any) -> Any:
    return z / (1 + mpmath.exp(-mpmath.mpf("1.702") * z))


def exactly_gelu(z: Any) -> Any:
    return z * mpmath.erfc(-z / mpmath.sqrt(2)) / 2


def exactly_gelu_tanh(z: Any) -> Any:
    return z * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + CUBIC * z**3))) / 2


ORACLES: dict[str, Oracle] = {
    "silu": exactly_silu,
    "quick_gelu": exactly_quick_gelu,
    "gelu": exactly_gelu,
    "gelu_tanh": exactly_gelu_tanh,
}


@cache
def _unit_circle(nodes: int, precision: int) -> tuple[list[Any], list[Any]]:
    """Cosine and sine of every `nodes`-th part of a turn, in the precision of the caller in bits."""
    assert precision == mpmath.mp.prec
    turns = [mpmath.mpf(2 * k) / nodes for k in range(nodes)]
    return [mpmath.cospi(turn) for turn in turns], [mpmath.sinpi(turn) for turn in turns]


def exact_taylor(function: Oracle, center: float, circle: Any, highest: int) -> list[Any]:
    """Taylor coefficients of orders 0 .. `highest` from Cauchy's integral over a circle, by the trapezoidal rule.

    The rule errs by c[n + 256] circle^256: nothing in 60 digits on a circle of half the radius of convergence.
    """
    cosines, sines = _unit_circle(TAYLOR_NODES, mpmath.mp.prec)
    half = TAYLOR_NODES // 2
    values = [function(center + circle * mpmath.mpc(cosines[k], sines[k])) for k in range(half + 1)]
    real, imaginary = [value.real for value in values[1:-1]], [value.imag for value in values[1:-1]]
    coefficients = []
    for n in range(highest + 1):
        turned = [n * k % TAYLOR_NODES for k in range(1, half)]
        total = values[0].real + values[-1].real * (-1) ** n
        total += 2 * mpmath.fdot(real, [cosines[k] for k in turned])
        total += 2 * mpmath.fdot(imaginary, [sines[k] for k in turned])
        coefficients.append(total / (TAYLOR_NODES * circle**n))
    return coefficients


def exact_chebyshev(function: Oracle, center: float, radius: float, orders: list[int]) -> list[Any]:
    """Coefficients of T_n: the mean of phi(center + radius cos a) 2 cos(n a), by the trapezoidal rule.

    The rule errs by the coefficients of orders 720 - n and beyond.
    """
    cosines, _ = _unit_circle(CHEBYSHEV_NODES, mpmath.mp.prec)
    half = CHEBYSHEV_NODES // 2
    values = [function(center + radius * cosine) for cosine in cosines[: half + 1]]
    result = []
    for n in orders:
        total = values[0] + values[-1] * (-1) ** n
        total += 2 * mpmath.fdot(values[1:half], [cosines[n * k % CHEBYSHEV_NODES] for k in range(1, half)])
        result.append(total / CHEBYSHEV_NODES * (2 if n else 1))
    return result
