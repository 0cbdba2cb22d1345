"""One protected MLP as an attacker sees it: its terms, its intervals, and its outputs for chosen inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
    """One MLP of a bundle, with P protected neurons and the unprotected neurons after them.

    Each tensor is read once, for all attacks, and stays on the device as long as the layer. No attack may change one in
    place.

    Attributes:
        released: The tensors of the bundle.
        mlp: Where the dense MLP is in the original architecture.
        widths: For each order n, how many neurons have a term of order n. All P have order 0.
        basis: The functions of the series.
        activation: The activation that the series expand.
        device: Device on which the attacks compute.
    """

    released: Checkpoint
    mlp: Mlp
    widths: list[int]
    basis: Basis
    activation: Activation
    device: torch.device
    _read: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def has(self, name: str) -> bool:
        """Whether the layer has a tensor of this name."""
        return f"{self.mlp.path}.{name}" in self.released

    def tensor(self, name: str) -> Tensor:
        """One tensor of the layer in its stored dtype, on the device, by its name in a Taylor MLP."""
        if name not in self._read:
            self._read[name] = self.released.tensor(f"{self.mlp.path}.{name}").to(self.device)
        return self._read[name]

    @property
    def protected(self) -> int:
        """The number P of protected neurons."""
        return self.widths[0]

    @cached_property
    def theta(self) -> Tensor:
        """The stacked terms [H, sum(widths)] in float32."""
        return self.tensor("terms.weight")[:, : sum(self.widths)].float()

    @property
    def unprotected(self) -> Tensor:
        """The output weights [H, F - P] of the unprotected neurons, as the bundle stores them."""
        return self.tensor("terms.weight")[:, sum(self.widths) :]

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
        """Highest order [P] of each protected neuron, int64, in falling order."""
        places = torch.arange(self.protected, device=self.device)
        return (places < torch.tensor(self.widths, device=self.device)[:, None]).sum(0) - 1

    def by_order(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each order n with its terms [H, widths[n]] float32."""
        yield from enumerate(torch.split_with_sizes(self.theta, self.widths, dim=1))

    def along(self, columns: Tensor) -> Tensor:
        """The parts [N + 1, P] float64 of all terms along `columns` [H, P] float32, zero above each neuron's order."""
        parts = torch.zeros(len(self.widths), self.protected, dtype=torch.float64, device=self.device)
        for order, terms in self.by_order():
            width = terms.shape[1]
            parts[order, :width] = (terms * columns[:, :width]).sum(0)
        return parts

    def combined(self, factors: Tensor) -> Tensor:
        """The sum [H, P] float32 of the terms of each neuron times `factors` [N + 1, P]."""
        factors = factors.float()
        total = torch.zeros(len(self.theta), self.protected, device=self.device)
        for order, terms in self.by_order():
            width = terms.shape[1]
            total[:, :width].addcmul_(terms, factors[order, :width])
        return total

    @cached_property
    def observed(self) -> Tensor:
        """Coefficients [N + 1, P] float64 of the series up to one factor a neuron.

        The terms of a neuron are multiples of one column, so that each coefficient is the part of a term along the
        larger of the first two.
        """
        first, second = (terms for (_, terms), _ in zip(self.by_order(), range(2), strict=False))
        columns = torch.where(first.norm(dim=0) >= second.norm(dim=0), first, second)
        return self.along(columns / columns.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny))


@dataclass(frozen=True)
class Recovered:
    """What an attack recovers of one layer.

    Attributes:
        weights: The protected output weights [H, P], neurons in the order of the bundle; NaN for those not found.
        under_determined: Why the data of the attack do not determine all weights; None if they do.
        intervals: For how many neurons the interval follows from the terms alone, and how many have orders high enough
            for that; None if the attack does not look for intervals.
    """

    weights: Tensor
    under_determined: str | None = None
    intervals: tuple[int, int] | None = None


@dataclass(frozen=True)
class Attack:
    """One attack on the protected output weights, layer by layer.

    Attributes:
        name: Its name in `audit.attacks`.
        source: Where it was published.
        assumptions: What the attacker sees.
        budget: What the attack may spend under these settings, in words.
        recover: Recovers the protected weights of one layer.
    """

    name: str
    source: str
    assumptions: str
    budget: Callable[[Audit], str]
    recover: Callable[[ProtectedLayer, Audit], Recovered]


_SEED = 0


def sampled(layer: ProtectedLayer, samples: int) -> tuple[Tensor, Tensor]:
    """Features [S, P] of the protected neurons, and the part [S, H] of the output that these neurons add; float64.

    Inputs are random, at a scale that makes pre-activations about as wide as the intervals, where a layer is neither
    linear nor zero.
    """
    box, gate = black_box(layer), layer.tensor("gate.weight").float()
    generator = torch.Generator().manual_seed(_SEED)
    scale = float(layer.radius.median()) / float(gate.norm(dim=1).median().clamp_min(1e-12))
    inputs = (scale * torch.randn(samples, gate.shape[1], generator=generator)).to(box.terms.weight)
    with torch.no_grad():
        outputs = box(inputs).double()
    if layer.has("terms.bias"):
        outputs = outputs - layer.tensor("terms.bias").double()
    values = features(layer, inputs)
    return values[:, : layer.protected], outputs - values[:, layer.protected :] @ layer.unprotected.double().T


def black_box(layer: ProtectedLayer) -> TaylorMLP:
    """The layer as the bundle's own code runs it."""
    names = [*INPUTS, "terms.weight", "terms.bias", *INTERVAL_PARAMETERS]
    tensors = {name: layer.tensor(name) for name in names if layer.has(name)}
    biases = [name.removesuffix(".bias") for name in tensors if name.endswith(".bias")]
    with torch.device("meta"):
        box = TaylorMLP(
            len(layer.theta),
            layer.basis,
            layer.widths,
            layer.activation.name,
            "up.weight" in tensors,
            biases,
            layer.unprotected.shape[1],
        )
    box.load_state_dict(tensors, assign=True)
    return box.eval()


def features(layer: ProtectedLayer, inputs: Tensor) -> Tensor:
    """u phi(z) [S, F] float64 for inputs [S, H], from the unprotected input layers and the public activation."""

    def linear(name: str) -> Tensor:
        product = inputs.double() @ layer.tensor(f"{name}.weight").double().T
        return product + layer.tensor(f"{name}.bias").double() if layer.has(f"{name}.bias") else product

    values = layer.activation.value(linear("gate"))
    return values * linear("up") if layer.has("up.weight") else values
