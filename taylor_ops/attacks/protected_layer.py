"""One protected MLP as an attacker sees it: its terms, its intervals, and its outputs for inputs of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from taylor_ops.config.audit import Audit
from taylor_ops.config.conversion import Basis
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.modeling.taylor_mlp import INTERVAL_PARAMETERS, TaylorMLP
from taylor_ops.series.activations import Activation

INPUTS = ("gate.weight", "gate.bias", "up.weight", "up.bias")


@dataclass(frozen=True)
class ProtectedLayer:
    """One MLP of a bundle with P protected neurons and some in clear; tensors are read when they are asked for.

    mlp: where the dense MLP stands in the original architecture. widths: neurons that have a term of order n, P have
    order 0. Neurons in clear come after them.
    """

    released: Checkpoint
    mlp: Mlp
    widths: list[int]
    basis: Basis
    activation: Activation

    def has(self, name: str) -> bool:
        """Whether the layer has a tensor of this name."""
        return f"{self.mlp.path}.{name}" in self.released

    def tensor(self, name: str) -> Tensor:
        """One tensor of the layer as it is stored, by its name in a Taylor MLP."""
        return self.released.tensor(f"{self.mlp.path}.{name}")

    @property
    def protected(self) -> int:
        """How many neurons P have their output weights withheld."""
        return self.widths[0]

    @cached_property
    def _columns(self) -> Tensor:
        return self.tensor("terms.weight")

    @cached_property
    def theta(self) -> Tensor:
        """The stacked terms [H, sum(widths)] in float32."""
        return self._columns[:, : sum(self.widths)].float()

    @property
    def in_clear(self) -> Tensor:
        """The output weights [H, F - P] that the bundle states, as they are stored."""
        return self._columns[:, sum(self.widths) :]

    @property
    def center(self) -> Tensor:
        """Centres [P] of the intervals, float64."""
        return self.tensor("center").double()

    @property
    def radius(self) -> Tensor:
        """Radii [P] of the intervals, float64."""
        return self.tensor("radius").double()

    @property
    def orders(self) -> Tensor:
        """Highest order [P] of each protected neuron, int64; falling."""
        places = torch.arange(self.protected)
        return (places < torch.tensor(self.widths)[:, None]).sum(0) - 1

    def by_order(self) -> Iterator[tuple[int, Tensor]]:
        """The terms of each order n, as n and [H, widths[n]] float32."""
        yield from enumerate(torch.split_with_sizes(self.theta, self.widths, dim=1))


@dataclass(frozen=True)
class Recovered:
    """What an attack makes of one layer.

    weights: withheld output weights [H, P], neurons in the bundle's order; NaN where nothing was found.
    under_determined: why not all of them could be found from what the attack looks at, None where they could.
    intervals: of how many neurons the interval follows from the terms alone, and how many have the orders to tell it
    by; None where the attack does not ask.
    """

    weights: Tensor
    under_determined: str | None = None
    intervals: tuple[int, int] | None = None


@dataclass(frozen=True)
class Attack:
    """One attack on the withheld output weights. assumptions: what the attacker sees. budget: what it may spend."""

    name: str
    source: str
    assumptions: str
    budget: Callable[[Audit], str]
    recover: Callable[[ProtectedLayer, Audit], Recovered]


_SEED = 0


def sampled(layer: ProtectedLayer, samples: int) -> tuple[Tensor, Tensor]:
    """Features [S, P] of the protected neurons and what these alone add to the output [S, H], float64.

    Inputs are drawn at random, so that pre-activations are about as wide as the intervals, where a layer is neither
    linear nor zero.
    """
    box, gate = black_box(layer), layer.tensor("gate.weight").float()
    generator = torch.Generator().manual_seed(_SEED)
    scale = float(layer.radius.median()) / float(gate.norm(dim=1).median().clamp_min(1e-12))
    inputs = (scale * torch.randn(samples, gate.shape[1], generator=generator)).to(box.terms.weight.dtype)
    with torch.no_grad():
        outputs = box(inputs).double()
    if layer.has("terms.bias"):
        outputs = outputs - layer.tensor("terms.bias").double()
    known = features(layer, inputs)
    return known[:, : layer.protected], outputs - known[:, layer.protected :] @ layer.in_clear.double().T


def black_box(layer: ProtectedLayer) -> TaylorMLP:
    """The layer as the bundle's own code runs it."""
    names = [*INPUTS, "terms.weight", "terms.bias", *INTERVAL_PARAMETERS]
    tensors = {name: layer.tensor(name) for name in names if layer.has(name)}
    biases = [name.removesuffix(".bias") for name in tensors if name.endswith(".bias")]
    with torch.device("meta"):
        box = TaylorMLP(
            layer.theta.shape[0],
            layer.basis,
            layer.widths,
            layer.activation.name,
            "up.weight" in tensors,
            biases,
            layer.in_clear.shape[1],
        )
    box.load_state_dict(tensors, assign=True)
    return box.eval()


def features(layer: ProtectedLayer, inputs: Tensor) -> Tensor:
    """u phi(z) [S, F] float64 for inputs [S, H], from the input layers in clear and the public activation."""

    def linear(name: str) -> Tensor:
        product = inputs.double() @ layer.tensor(f"{name}.weight").double().T
        return product + layer.tensor(f"{name}.bias").double() if layer.has(f"{name}.bias") else product

    values = layer.activation.value(linear("gate"))
    return values * linear("up") if layer.has("up.weight") else values
