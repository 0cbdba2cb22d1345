"""Forms of the terms of a layer that are meant to be harder to attack, and an attack on each that knows the form.

Every form gives the outputs of the plain one, exactly or nearly. `benchmarks.hardening` measures what each form costs
its owner and its attacker.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from taylor_ops.attacks.intervals import intervals_of
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.ratios import divided
from taylor_ops.modeling.taylor_mlp import basis_features
from taylor_ops.series.expansion import coefficients, evaluate, fit

_POINTS = 65
_DRAWS = 16
# Noise in a direction that no activation takes is at most as large as the largest term: more would break a neuron on
# the first input that is new.
_LARGEST_NOISE = 1.0
_TRIMMED = 0.05


@dataclass(frozen=True)
class Groups:
    """Terms, features or moments of the neurons of one order. stacked: [.., N + 1, f] of f neurons from `first` on."""

    first: int
    last: int
    columns: list[int]

    def stacked(self, values: Tensor) -> Tensor:
        """Columns [R, K] of a layer as [R, N + 1, f]."""
        width = self.last - self.first
        return values[:, self.columns].reshape(len(values), len(self.columns) // width, width)


def groups_of(layer: ProtectedLayer) -> list[Groups]:
    """The neurons of a layer, put together by their order."""
    starts = [sum(layer.widths[:n]) for n in range(len(layer.widths))]
    groups = []
    for n, last in enumerate(layer.widths):
        first = layer.widths[n + 1] if n + 1 < len(layer.widths) else 0
        if first < last:
            columns = [starts[m] + place for m in range(n + 1) for place in range(first, last)]
            groups.append(Groups(first, last, columns))
    return groups


def with_terms(layer: ProtectedLayer, theta: Tensor) -> ProtectedLayer:
    """The same layer as if the bundle had these terms [H, K]."""
    other = dataclasses.replace(layer)
    other.__dict__["theta"] = theta
    return other


def features_of(layer: ProtectedLayer, hidden: Tensor) -> Tensor:
    """Features [T, K] float32 of all terms for hidden states [T, H]."""
    z, u = (hidden @ layer.tensor(f"{name}.weight").float().T for name in ("gate", "up"))
    t = ((z - layer.center.float()) / layer.radius.float()).clamp(-1, 1)
    return torch.cat(basis_features(layer.basis, layer.widths, t, u), dim=-1)


def known_coefficients(layer: ProtectedLayer) -> Tensor:
    """Coefficients [N + 1, P] float64 of phi, which everyone who has the intervals can compute."""
    return coefficients(fit(layer.activation, layer.center, layer.radius, layer.basis), layer.orders)


# Order 0 in the linear part


def folded(layer: ProtectedLayer) -> Tensor:
    """The matrix [H, H] that replaces all terms of order 0: their sum over the neurons, as a map of the MLP's input."""
    return layer.theta[:, : layer.protected] @ layer.tensor("up.weight").float()


def recovered_without_order_0(layer: ProtectedLayer) -> Tensor:
    """Weights [H, P] from the orders above 0: their series is phi up to a constant and one factor."""
    found = torch.empty(len(layer.theta), layer.protected)
    t = torch.linspace(-1, 1, _POINTS, dtype=torch.float64)[:, None]
    for group in groups_of(layer):
        stacked = group.stacked(layer.theta)[:, 1:]
        gram = torch.einsum("hnf,hmf->fnm", stacked, stacked).double()
        leading = torch.linalg.eigh(gram).eigenvectors[:, :, -1].T
        series = evaluate(layer.basis, torch.cat([torch.zeros_like(leading[:1]), leading]), t)
        place = slice(group.first, group.last)
        target = layer.activation.right(layer.center[place] + layer.radius[place] * t)
        apart = series - series.mean(0)
        factor = (apart * (target - target.mean(0))).sum(0) / apart.square().sum(0)
        found[:, place] = torch.einsum("hnf,nf->hf", stacked, (leading / factor).float())
    return found


# Secret centres


def recovered_without_intervals(layer: ProtectedLayer) -> tuple[Tensor, float]:
    """Weights [H, P] from the terms alone, NaN if no interval follows, and the share of intervals that was found."""
    center, radius = intervals_of(layer.observed, layer.orders, layer.basis, layer.activation)
    told = ~center.isnan()
    near = (center - layer.center).abs() <= 0.01 * layer.radius
    near &= (radius - layer.radius).abs() <= 0.01 * layer.radius
    filled = fit(layer.activation, center.nan_to_num(0.0), radius.nan_to_num(1.0), layer.basis)
    weights = divided(layer, coefficients(filled, layer.orders))
    weights[:, ~told] = torch.nan
    return weights, float(near.double().mean())


# Noise


def with_even_noise(layer: ProtectedLayer, share: float, generator: torch.Generator) -> Tensor:
    """Terms [H, K] with noise of `share` of the root mean square of each column."""
    scale = layer.theta.square().mean(0).sqrt()
    return layer.theta + share * scale * torch.randn(layer.theta.shape, generator=generator)


def with_hidden_noise(
    layer: ProtectedLayer, features: Tensor, share: float, known: Tensor, generator: torch.Generator
) -> Tensor:
    """Terms [H, K] with noise in directions that activations seldom take. It is large, but little reaches an output.

    `features` [T, K] are those of the owner's text. The terms of a neuron get noise along the eigenvectors of the
    second moments of its features. It is larger for smaller eigenvalues, so that it adds `share` of the neuron's own
    output.
    """
    result = layer.theta.clone()
    for group in groups_of(layer):
        moments, own = _moments(group, features), known[: _terms(group), group.first : group.last]
        values, vectors = torch.linalg.eigh(moments)
        size = group.stacked(layer.theta).double().square().mean(0).sum(0).sqrt() / own.norm(dim=0)
        gives = size * torch.einsum("nf,fnm,mf->f", own, moments, own).clamp_min(0).sqrt()
        budget = share * gives / _terms(group) ** 0.5
        largest = _LARGEST_NOISE * size * own.abs().amax(0)
        deviation = (budget[:, None] / values.clamp_min(1e-30).sqrt()).minimum(largest[:, None])
        drawn = torch.randn(len(result), *deviation.shape, generator=generator, dtype=torch.float64)
        noise = torch.einsum("hfk,fnk->hnf", drawn * deviation, vectors)
        result[:, group.columns] += noise.reshape(len(result), -1).float()
    return result


def recovered_by_moments(layer: ProtectedLayer, features: Tensor, known: Tensor) -> Tensor:
    """Weights [H, P] from the terms, weighted by the `features` [T, K] of the attacker's own text.

    The activations of each neuron that are farthest from its median are left out, because the owner's text may have had
    none there.
    """
    found = torch.empty(len(layer.theta), layer.protected)
    for group in groups_of(layer):
        own = known[: _terms(group), group.first : group.last]
        weighed = torch.einsum("fnm,mf->nf", _moments(group, features, _TRIMMED), own)
        share = weighed / (own * weighed).sum(0)
        found[:, group.first : group.last] = torch.einsum("hnf,nf->hf", group.stacked(layer.theta), share.float())
    return found


def _terms(group: Groups) -> int:
    return len(group.columns) // (group.last - group.first)


def _moments(group: Groups, features: Tensor, trimmed: float = 0.0) -> Tensor:
    """Second moments [f, N + 1, N + 1] float64 of the features of each neuron, without a share of the outermost."""
    own = group.stacked(features).double()
    if trimmed:
        # The feature of order 1 is t times that of order 0.
        t = own[:, 1] / torch.where(own[:, 0] == 0, 1.0, own[:, 0])
        far = (t - t.median(dim=0).values).abs()
        own = own * (far <= far.quantile(1 - trimmed, dim=0))[:, None]
    return torch.einsum("tnf,tmf->fnm", own, own) / len(own)


# Neurons mixed within groups


def mixed(weights: Tensor, slopes: Tensor, generator: torch.Generator) -> Tensor:
    """The part of order 1 of a group of g neurons whose inputs are mixed: [H, g, g] float32.

    The bundle states mixed rows, u' = A u and t' = B t with random A and B, and the polynomial in them. Its part of
    order 1 in t' is sum_j w_j c_j (A^-1)_j (B^-1)_j^T.

    Args:
        weights: Output weights w [H, g].
        slopes: Coefficients c [g] of order 1.
        generator: Draws A and B.
    """
    group = len(slopes)
    back = [torch.linalg.inv(torch.randn(group, group, generator=generator, dtype=torch.float64)) for _ in range(2)]
    return torch.einsum("hj,j,jk,ja->hka", weights.double(), slopes, *back).float()


def unmixed(part: Tensor) -> Tensor:
    """Columns [H, g] of the output weights up to order and scale, from the part of order 1 [H, g, g].

    It is a tensor of rank g, whose factors two random slices give as eigenvectors (Jennrich's algorithm; Leurgans, Ross
    and Abel 1993). Of several draws the one whose factors fit best counts.
    """
    part = part.double()
    height, group, _ = part.shape
    left = torch.linalg.svd(part.reshape(height, -1), full_matrices=False).U[:, :group]
    core = torch.einsum("hg,hka->gka", left, part)
    generator = torch.Generator().manual_seed(0)
    best: Tensor = left
    least = torch.inf
    for _ in range(_DRAWS):
        one, two = torch.randn(2, group, generator=generator, dtype=torch.float64)
        first, second = (torch.einsum("gka,k->ga", core, along) for along in (one, two))
        vectors = torch.linalg.eig(first @ torch.linalg.pinv(second)).eigenvectors.real
        factors = torch.einsum("jg,gka->jka", torch.linalg.pinv(vectors), core)
        values = torch.linalg.svdvals(factors)
        misfit = float((values[:, 1] / values[:, 0]).max()) if group > 1 else 0.0
        if misfit < least:
            best, least = left @ vectors, misfit
    return best
