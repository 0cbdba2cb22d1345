"""Least squares on (features, output): the output of an MLP is linear in features that everyone can compute.

The attack looks at no term. It draws inputs at random and runs the layer of the bundle on them as a black box. The
features u phi(z) follow from the unprotected input layers and the public activation. F features have a single solution
if there are at least F samples and no feature is a linear combination of others. Anything less is reported as
under-determined. This is textbook regression; for TaylorMLP releases see arXiv 2506.19874.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered, sampled
from taylor_ops.config.audit import Audit

_SMALLEST_SHARE = 1e-11


def recover(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Recover output weights of one layer from `settings.samples` random inputs; NaN if they are not determined."""
    samples, width = settings.samples, layer.protected
    if samples < width:
        nothing = torch.full((len(layer.theta), width), torch.nan, device=layer.device)
        return Recovered(nothing, f"{samples} samples for {width} unknowns a row in {layer.mlp.path}")
    found, left_open = solved(*sampled(layer, samples))
    found[:, left_open] = torch.nan
    many = int(left_open.sum())
    return Recovered(found.float(), f"{many} of {width} neurons of {layer.mlp.path} are left open" if many else None)


def solved(features: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Solve outputs = features weights^T; returns weights [H, F], and for each neuron [F] whether it is left open.

    Columns are scaled to equal norm first. A direction determines nothing if its share of the squared features is below
    the precision of float64. Every neuron that has a part in such a direction is left open.
    """
    norms = features.norm(dim=0)
    scale = torch.where(norms > 0, norms, 1.0)
    values, vectors = torch.linalg.eigh((features / scale).T @ (features / scale))
    determined = values > _SMALLEST_SHARE * values[-1]
    inverse = torch.where(determined, 1 / torch.where(determined, values, 1.0), 0.0)
    found = vectors @ (inverse[:, None] * (vectors.T @ ((features / scale).T @ outputs)))
    left_open = vectors[:, ~determined].square().sum(1) > _SMALLEST_SHARE
    return (found / scale[:, None]).T, left_open


LEAST_SQUARES = Attack(
    name="least_squares",
    source="regression on public features; for TaylorMLP releases arXiv 2506.19874",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and knows the activation; "
    "no term is looked at",
    budget=lambda settings: f"{settings.samples} random inputs a layer",
    recover=recover,
)
