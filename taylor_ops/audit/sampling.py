"""Sampled activations of one protected layer: what its features are and what the bundle's own code makes of them.

No term is looked at. The features u phi(z) follow from the input layers in clear and the public activation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.audit.layer import INPUTS, ProtectedLayer
from taylor_ops.modeling.taylor_mlp import INTERVAL_PARAMETERS, TaylorMLP

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
