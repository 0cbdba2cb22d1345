"""What an attacker sees of one protected MLP, and what an attack is."""

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
