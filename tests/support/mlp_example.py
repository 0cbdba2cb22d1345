"""A small original MLP, its inputs, and its release as a Taylor MLP under one conversion."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.conversion.terms import mlp_tensors
from taylor_ops.model.original import MlpWeights
from taylor_ops.modeling.taylor_mlp import TaylorMLP
from taylor_ops.series.activations import ACTIVATIONS, Activation
from taylor_ops.series.bound import OutputWeights
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.layout import Layout

HIDDEN, NEURONS, TOKENS = 12, 40, 300
PATH = "model.layers.0.mlp"


class OriginalMLP(nn.Module):
    """A gated or plain MLP with layers of the names that its roles give."""

    def __init__(self, activation: Activation, gated: bool, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.activation = activation
        self.gate = nn.Linear(HIDDEN, NEURONS, bias=not gated)
        self.up = nn.Linear(HIDDEN, NEURONS, bias=False) if gated else None
        self.down = nn.Linear(NEURONS, HIDDEN, bias=not gated)
        nn.init.normal_(self.gate.weight, std=HIDDEN**-0.5)
        # From neurons that are almost linear to neurons that reach both asymptotes.
        with torch.no_grad():
            self.gate.weight *= torch.logspace(-2, 0.6, NEURONS)[torch.randperm(NEURONS)][:, None]

    def forward(self, x: Tensor) -> Tensor:
        z = self.gate(x)
        hidden = self.activation.value(z)
        output: Tensor = self.down(hidden if self.up is None else hidden * self.up(x))
        return output


def expansions(folder: Path, low: Tensor, high: Tensor, original: OriginalMLP, conversion: Conversion) -> Expansions:
    """The expansions of one layer whose captured ranges are given, as if its outputs had the norm 1."""
    weights = OutputWeights.of(original.down.weight.detach())
    numbers = {"output_norm": 1.0, "rows": weights.rows, "alignment": weights.alignment}
    named = {"low": low, "high": high, "factor": torch.ones_like(low), "norms": weights.norms, "peaks": weights.peaks}
    named |= {name: torch.tensor([number]) for name, number in numbers.items()}
    save_file({f"{PATH}.{name}": value.float() for name, value in named.items()}, folder / "ranges.safetensors")
    return Expansions(folder / "ranges.safetensors", original.activation, conversion)


def released(original: OriginalMLP, stacked: Layout, basis: Basis, dtype: torch.dtype = torch.float32) -> TaylorMLP:
    """The Taylor MLP of an original, filled as a bundle fills it."""
    with torch.no_grad():
        weights = MlpWeights(
            gate=original.gate.weight,
            up=None if original.up is None else original.up.weight,
            down=original.down.weight,
            gate_bias=original.gate.bias,
            down_bias=original.down.bias,
        )
        gated = original.up is not None
        biases = () if gated else ("gate", "terms")
        taylor = TaylorMLP(HIDDEN, basis, stacked.widths, original.activation.name, gated, biases).to(dtype)
        taylor.load_state_dict(mlp_tensors(weights, stacked, dtype))
    return taylor


class Case:
    """An original MLP, its inputs, and its release under one conversion."""

    def __init__(self, folder: Path, activation: str, gated: bool, conversion: Conversion) -> None:
        self.original = OriginalMLP(ACTIVATIONS[activation], gated)
        self.inputs = torch.randn(TOKENS, HIDDEN)
        with torch.no_grad():
            z = self.original.gate(self.inputs)
        fitted = expansions(folder, z.amin(0), z.amax(0), self.original, conversion)
        self.plan = fitted.ladder()[0]
        self.layout = fitted.layout(PATH, self.plan)
        self.error = fitted[PATH].error_at(self.layout.orders)
        self.taylor = released(self.original, self.layout, conversion.basis)

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pre-activations, factors [N, F] and the magnitudes of the output weights [H, F], in float64."""
        with torch.no_grad():
            z = self.original.gate(inputs).double()
            factor = torch.ones_like(z) if self.original.up is None else self.original.up(inputs).double()
            return z, factor.abs(), self.original.down.weight.double().abs()

    def rounding(self, inputs: Tensor) -> Tensor:
        """What float32 may add to each output [N, H]: its precision times the magnitudes that are summed."""
        z, factor, weight = self.parts(inputs)
        return 1e-5 * (1 + (factor * (1 + z.abs())) @ weight.T)


CASES = [
    ("silu", True, Conversion(tolerance=1e-3)),
    ("silu", True, Conversion(tolerance=1e-1, range_margin=0.1)),
    ("gelu_new", False, Conversion(tolerance=1e-3)),
    ("gelu", False, Conversion(tolerance=2e-4)),
    ("quick_gelu", True, Conversion(tolerance=1e-2)),
    ("silu", True, Conversion(basis="taylor", tolerance=1e-1, range_margin=0.0)),
    ("gelu_new", False, Conversion(basis="taylor", tolerance=1e-1, range_margin=0.0)),
]
