"""Rank-one factorisation across orders: the terms of a neuron are one column of the output weights, rescaled.

It needs the bundle alone, no data and no queries. It follows the extraction of parameters from TaylorMLP releases in
arXiv 2506.19874.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.config.audit import Audit
from taylor_ops.series.expansion import evaluate

_POINTS = 65


def recover(layer: ProtectedLayer, _settings: Audit) -> Recovered:
    """Recover the protected weights of one layer.

    The terms of a neuron are w c^T up to rounding. Their leading singular vectors give w and c up to one factor. It is
    the factor with which the series with coefficients c equals the activation on the neuron's interval.
    """
    theta, center, radius = layer.theta, layer.center, layer.radius
    t = torch.linspace(-1, 1, _POINTS, dtype=torch.float64)[:, None]
    recovered = torch.empty(theta.shape[0], layer.protected)
    for first, last, columns in neurons_of_equal_order(layer.widths):
        stacked = theta[:, columns].reshape(theta.shape[0], len(columns) // (last - first), last - first)
        coefficients = _leading(stacked)
        series = evaluate(layer.basis, coefficients, t)
        target = layer.activation.right(center[first:last] + radius[first:last] * t)
        factor = (series * target).sum(0) / series.square().sum(0)
        recovered[:, first:last] = torch.einsum("hnf,nf->hf", stacked, (coefficients / factor).float())
    return Recovered(recovered)


def _leading(stacked: Tensor) -> Tensor:
    """Leading right singular vector [N + 1, F] float64 of the terms [H, N + 1, F] of each neuron, with either sign."""
    gram = torch.einsum("hnf,hmf->fnm", stacked, stacked).double()
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[:, :, -1].T


def neurons_of_equal_order(widths: list[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield each run `first` to `last` of places with the same order, and the columns of their terms, by order."""
    starts = [sum(widths[:n]) for n in range(len(widths))]
    for n, width in enumerate(widths):
        first, last = (widths[n + 1] if n + 1 < len(widths) else 0), width
        if first < last:
            yield first, last, [starts[m] + place for m in range(n + 1) for place in range(first, last)]


RANK_ONE = Attack(
    name="rank_one",
    source="arXiv 2506.19874",
    assumptions="the attacker has the bundle, and the name of the activation, which its config states",
    budget=lambda _settings: "one eigenvector a neuron, no data and no queries",
    recover=recover,
)
