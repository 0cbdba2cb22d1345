"""Least squares on (features, output): the output of an MLP is linear in features that everyone can compute.

Looks at no term. Inputs are drawn at random, the layer of the bundle is asked for its outputs as a black box, and the
features u phi(z) follow from the input layers in clear and the public activation. F features have one solution only
where there are at least F samples and no features that are linear combinations of others; anything less is reported as
under-determined. Textbook regression; for TaylorMLP releases see arXiv 2506.19874.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylor_ops.audit.layer import INPUTS, Attack, ProtectedLayer, Recovered
from taylor_ops.audit_config import Audit
from taylor_ops.modeling.taylor_mlp import INTERVAL_PARAMETERS, TaylorMLP

_SMALLEST_SHARE = 1e-11
_SEED = 0


def recover(layer: ProtectedLayer, settings: Audit) -> Recovered:
    """Output weights of one layer from `settings.samples` random inputs; NaN where they are not determined."""
    box = black_box(layer)
    samples, width = settings.samples, layer.protected
    gate = layer.tensor("gate.weight").float()
    nothing = torch.full((layer.theta.shape[0], width), torch.nan)
    if samples < width:
        return Recovered(nothing, f"{samples} samples for {width} unknowns a row in {layer.mlp.path}")
    generator = torch.Generator().manual_seed(_SEED)
    # Pre-activations about as wide as the intervals, where a layer is neither linear nor zero.
    scale = float(layer.radius.median()) / float(gate.norm(dim=1).median().clamp_min(1e-12))
    inputs = (scale * torch.randn(samples, gate.shape[1], generator=generator)).to(box.terms.weight.dtype)
    with torch.no_grad():
        outputs = box(inputs).double()
    if layer.has("terms.bias"):
        outputs = outputs - layer.tensor("terms.bias").double()
    known = features(layer, inputs)
    outputs = outputs - known[:, width:] @ layer.in_clear.double().T
    found, left_open = solved(known[:, :width], outputs)
    found[:, left_open] = torch.nan
    many = int(left_open.sum())
    return Recovered(found.float(), f"{many} of {width} neurons of {layer.mlp.path} are left open" if many else None)


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


def solved(features: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [H, F] with outputs = features weights^T, and which [F] of them the samples leave open.

    Columns are brought to equal norm first. A direction whose share of the squared features is below float64's reach
    says nothing, and every neuron that has a part in it is left open.
    """
    norms = features.norm(dim=0)
    scale = torch.where(norms > 0, norms, 1.0)
    values, vectors = torch.linalg.eigh((features / scale).T @ (features / scale))
    told = values > _SMALLEST_SHARE * values[-1]
    inverse = torch.where(told, 1 / torch.where(told, values, 1.0), 0.0)
    found = vectors @ (inverse[:, None] * (vectors.T @ ((features / scale).T @ outputs)))
    left_open = vectors[:, ~told].square().sum(1) > _SMALLEST_SHARE
    return (found / scale[:, None]).T, left_open


ATTACK = Attack(
    name="least_squares",
    source="regression on public features; for TaylorMLP releases arXiv 2506.19874",
    assumptions="the attacker can run the bundle's layers on inputs of their choice and knows the activation; "
    "no term is looked at",
    budget=lambda settings: f"{settings.samples} random inputs a layer",
    recover=recover,
)
