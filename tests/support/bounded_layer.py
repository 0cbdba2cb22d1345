"""A layer with its bound and its released form in float64, random ones, and inputs that come near the bound."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from taylor_ops.config.conversion import Basis
from taylor_ops.conversion.terms import terms
from taylor_ops.modeling.taylor_mlp import basis_features
from taylor_ops.series.activations import ACTIVATIONS
from taylor_ops.series.bound import Bound, OutputWeights, layer_bound
from taylor_ops.series.expansion import Expansion, coefficients, fit, intervals, orders_for
from taylor_ops.series.layout import layout

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("silu", "gelu", "gelu_new", "quick_gelu")
BASES: tuple[Basis, ...] = ("chebyshev", "taylor")
TOKENS = 64


@dataclass(frozen=True)
class Layer:
    """A layer with its output weights [H, F], its expansion and orders [F], and the largest |u| [F]."""

    name: str
    weight: Tensor
    expansion: Expansion
    orders: Tensor
    factor: Tensor
    dtype: torch.dtype

    def bound(self, factor: Tensor | None = None, z: Tensor | None = None) -> Bound:
        given_factor = self.factor if factor is None else factor
        weights = OutputWeights.of(self.weight)
        return layer_bound(self.expansion, self.orders, weights, given_factor, 1.0, self.dtype, z, z)

    @property
    def overflows(self) -> bool:
        """Whether a term or a carrier is too large for the dtype."""
        stacked = layout(self.expansion, self.orders)
        stored = terms(self.weight, stacked, self.dtype).whole(), stacked.carrier.to(self.dtype)
        return not all(bool(part.isfinite().all()) for part in stored)

    def original(self, z: Tensor, u: Tensor) -> Tensor:
        """The output [T, H] for pre-activations z and factors u [T, F]."""
        return (u * ACTIVATIONS[self.name].value(z)) @ self.weight.double().T

    def released(self, z: Tensor, u: Tensor, exact_terms: bool = False) -> Tensor:
        """The output [T, H] of the bundle in float64 arithmetic, from its terms and carriers as stored."""
        stacked = layout(self.expansion, self.orders)
        z, u = z[:, stacked.permutation], u[:, stacked.permutation]
        inside = z.clamp(stacked.center - stacked.radius, stacked.center + stacked.radius)
        t = (inside - stacked.center) / stacked.radius
        features = basis_features(self.expansion.basis, stacked.widths, t, u)
        carrier, value = stacked.carrier.to(self.dtype).double(), ACTIVATIONS[self.name].value
        outside = value(z) - value(inside)
        for order in range(2):
            features[order] = features[order] + u * outside * carrier[order]
        theta = terms(self.weight, stacked, torch.float64 if exact_terms else self.dtype).whole().double()
        output: Tensor = torch.cat(features, dim=-1) @ theta.T
        return output

    def apart(self, z: Tensor, u: Tensor) -> Tensor:
        """The L2 norm [T] of the error, less what float64 may do to it."""
        size = coefficients(self.expansion, self.orders).abs().sum(0) + z.abs()
        noise: Tensor = 1e-14 * (u.abs() * size) @ torch.linalg.vector_norm(self.weight.double(), dim=0)
        error: Tensor = torch.linalg.vector_norm(self.released(z, u) - self.original(z, u), dim=-1) - noise
        return error


def random_layer(
    seed: int, name: str = "silu", basis: Basis = "chebyshev", dtype: torch.dtype = torch.float32, heavy: bool = False
) -> Layer:
    """A layer of random size, scale, ranges and tolerance; `heavy` makes a few weights and factors far larger."""
    generator = torch.Generator().manual_seed(seed)
    rows, neurons = (int(torch.randint(1, 80, (1,), generator=generator)) for _ in range(2))
    weight = torch.randn(rows, neurons, generator=generator) * 10.0 ** -(seed % 5)
    factor = torch.rand(neurons, generator=generator).double() * 3
    if heavy:
        weight = weight * torch.randn(rows, neurons, generator=generator).mul(1.5).exp()
        factor = factor * torch.randn(neurons, generator=generator).double().mul(1.5).exp()
    width = 10 ** (torch.rand(neurons, generator=generator).double() * 3 - 2)
    middle = torch.randn(neurons, generator=generator).double() * 3
    place = intervals(middle - width / 2, middle + width / 2, 0.25, torch.tensor(14.0).double())
    expansion = fit(ACTIVATIONS[name], *place, basis)
    orders = orders_for(expansion.errors, 10 ** -float(torch.rand(1, generator=generator) * 5), 64).clamp_max(64)
    # What a bundle is compared with is the original in the released dtype.
    return Layer(name, weight.to(dtype).float(), expansion, orders, factor, dtype)


layers = st.builds(
    random_layer,
    seed=st.integers(0, 10**6),
    name=st.sampled_from(NAMES),
    basis=st.sampled_from(BASES),
    dtype=st.sampled_from(DTYPES),
    heavy=st.booleans(),
)

sound_layers = layers.filter(lambda layer: not layer.overflows)


def inputs_inside(layer: Layer, seed: int) -> tuple[Tensor, Tensor]:
    """Pre-activations and factors [T, F] in the captured ranges; in half of the tokens all at an end or a corner."""
    generator = torch.Generator().manual_seed(seed)
    shape = TOKENS, len(layer.factor)
    t, u = (torch.rand(shape, generator=generator).double() * 2 - 1 for _ in range(2))
    half = TOKENS // 2
    t[: half // 2] = t[: half // 2].sign()
    u[half // 2 : half + half // 2] = u[half // 2 : half + half // 2].sign()
    return layer.expansion.center + layer.expansion.radius * t, layer.factor * u


def one_aligned_input(layer: Layer, exact_terms: bool) -> tuple[Tensor, Tensor]:
    """An input [1, F] whose neurons are each where they are most wrong and push the output in one direction.

    That direction is the one in which the largest of their errors points; `exact_terms` leaves out rounding.
    """
    t = torch.cos(torch.linspace(0, torch.pi, 101, dtype=torch.float64))
    z, u, pushes = layer.expansion.center.clone()[None], layer.factor.clone()[None], []
    for neuron in range(len(layer.factor)):
        one = replace(
            layer,
            weight=layer.weight[:, neuron : neuron + 1],
            expansion=single(layer.expansion, neuron),
            orders=layer.orders[neuron : neuron + 1],
        )
        points = (layer.expansion.center[neuron] + layer.expansion.radius[neuron] * t)[:, None]
        factor = layer.factor[neuron].expand(101, 1)
        error = one.released(points, factor, exact_terms) - one.original(points, factor)
        at = int(torch.linalg.vector_norm(error, dim=-1).argmax())
        z[0, neuron] = points[at, 0]
        pushes.append(error[at])
    directions = torch.stack(pushes)
    along = directions @ directions[int(torch.linalg.vector_norm(directions, dim=-1).argmax())]
    return z, u * torch.where(along < 0, -1.0, 1.0)


def single(expansion: Expansion, neuron: int) -> Expansion:
    """The expansion of one neuron of a layer."""
    part = slice(neuron, neuron + 1)
    return Expansion(
        center=expansion.center[part],
        radius=expansion.radius[part],
        chebyshev=expansion.chebyshev[:, part],
        taylor=None if expansion.taylor is None else expansion.taylor[:, part],
    )


def one_constant(neurons: int) -> Expansion:
    """phi = 1 on [-1, 1], which a series of order 1 gives exactly."""
    series = torch.zeros(161, neurons, dtype=torch.float64)
    series[0] = 1.0
    zeros, ones = torch.zeros(neurons).double(), torch.ones(neurons).double()
    return Expansion(zeros, ones, series, None)
