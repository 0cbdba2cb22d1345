"""Rank-one factorisation across orders: the terms of a neuron are one column of the output weights, rescaled.

It needs the bundle alone, no data and no queries. It follows the extraction of parameters from TaylorMLP releases in
arXiv 2506.19874.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.config.audit import Audit
from taylor_ops.series.expansion import evaluate

_POINTS = 65
# One step suffices where rounding is all that the terms of a neuron have beside one column.
_MOST_STEPS = 64
_SETTLED = 1e-6


def recover(layer: ProtectedLayer, _settings: Audit) -> Recovered:
    """Recover the protected weights of one layer.

    The terms of a neuron are w c^T up to rounding. Their leading singular vectors give w and c up to one factor. It is
    the factor with which the series with coefficients c equals the activation on the neuron's interval.
    """
    leading = _leading(layer)
    t = torch.linspace(-1, 1, _POINTS, dtype=torch.float64, device=layer.device)[:, None]
    series = evaluate(layer.basis, leading, t)
    target = layer.activation.right(layer.center + layer.radius * t)
    size = series.square().sum(0)
    # A neuron whose terms are all zero has a column of zeros, whatever the factor.
    factor = torch.where(size > 0, (series * target).sum(0) / size, 1.0)
    return Recovered(layer.combined(leading / factor))


def _leading(layer: ProtectedLayer) -> Tensor:
    """Leading right singular vectors [N + 1, P] float64 of the terms of each neuron, of either sign.

    It is a power iteration, as the other singular values are as small as rounding.
    """
    leading = _of_unit_size(layer.observed)
    for _ in range(_MOST_STEPS):
        before = leading
        leading = _of_unit_size(layer.along(layer.combined(before)))
        if bool((leading - before).abs().max() <= _SETTLED):
            break
    return leading


def _of_unit_size(columns: Tensor) -> Tensor:
    size: Tensor = columns.norm(dim=0)
    return columns / size.clamp_min(torch.finfo(columns.dtype).tiny)


RANK_ONE = Attack(
    name="rank_one",
    source="arXiv 2506.19874",
    assumptions="the attacker has the bundle, and the name of the activation, which its config states",
    budget=lambda _settings: "one eigenvector a neuron, no data and no queries",
    recover=recover,
)
