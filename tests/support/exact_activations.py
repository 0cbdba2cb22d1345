"""The activations and their coefficients in mpmath, independent of the project: what float64 results are held against.

Everything runs in the precision of the caller, 40 digits or more.
"""

from __future__ import annotations

from collections.abc import Callable
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


def exact_taylor(function: Oracle, center: float, circle: Any, highest: int) -> list[Any]:
    """Taylor coefficients of orders 0 .. `highest` from Cauchy's integral over a circle, by the trapezoidal rule.

    The rule errs by c[n + 256] circle^256: nothing in 60 digits on a circle of half the radius of convergence.
    """
    roots = [mpmath.expjpi(mpmath.mpf(2 * k) / TAYLOR_NODES) for k in range(TAYLOR_NODES)]
    half = [function(mpmath.mpf(center) + circle * roots[k]) for k in range(TAYLOR_NODES // 2 + 1)]
    coefficients = []
    for n in range(highest + 1):
        total = half[0].real + half[-1].real * (-1) ** n
        for k in range(1, TAYLOR_NODES // 2):
            root = roots[n * k % TAYLOR_NODES]
            total += 2 * (half[k].real * root.real + half[k].imag * root.imag)
        coefficients.append(total / (TAYLOR_NODES * circle**n))
    return coefficients


def exact_chebyshev(function: Oracle, center: float, radius: float, orders: list[int]) -> list[Any]:
    """Coefficients of T_n: the mean of phi(center + radius cos a) 2 cos(n a), by the trapezoidal rule.

    The rule errs by the coefficients of orders 720 - n and beyond.
    """
    cosines = [mpmath.cospi(mpmath.mpf(2 * k) / CHEBYSHEV_NODES) for k in range(CHEBYSHEV_NODES)]
    half = CHEBYSHEV_NODES // 2
    values = [function(center + radius * cosine) for cosine in cosines[: half + 1]]
    result = []
    for n in orders:
        total = values[0] + values[-1] * (-1) ** n
        total += 2 * sum(values[k] * cosines[n * k % CHEBYSHEV_NODES] for k in range(1, half))
        result.append(total / CHEBYSHEV_NODES * (2 if n else 1))
    return result
