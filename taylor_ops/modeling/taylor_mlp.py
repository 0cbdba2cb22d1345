"""Taylor MLP layers: series parameters in place of the MLP output weights. Needs torch only.

Scheme: "Taylor Unswift" (TaylorMLP), arXiv 2410.05331. A gated MLP `y = W (phi(z) * u)` is computed as
`y = sum_n Theta_n (u * P_n(t))` with `t = (z - center) / radius` clamped to [-1, 1], one product over the stacked
terms Theta_n. Neurons are sorted by falling order, so that order n uses the first `widths[n]` of them.

Outside its interval, a neuron has the value of its series at the end of the interval plus `phi(z) - phi(end)`. Its term
of order 0 or 1 carries this difference, because each of the two is a multiple of the output weights. So the difference
is as exact there as phi is. Unprotected neurons come last. Their feature is the plain `phi(z) * u`, and their output
weights, as trained, follow the terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

INTERVAL_PARAMETERS = {"center": 0, "radius": 0, "carrier": 2}
"""Parameters of the interval of a neuron and of what carries phi outside of it, with their rows (0 for a vector)."""


def quick_gelu(z: Tensor) -> Tensor:
    """`z * sigmoid(1.702 z)`. A named function, so that a model that uses it can be pickled."""
    return z * torch.sigmoid(1.702 * z)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
}
"""The activations without a kink."""


def _relu2(z: Tensor) -> Tensor:
    return functional.relu(z).square()


KINKED: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "relu2": _relu2}
"""The activations that are 0 left of 0 and a polynomial right of it."""

_FEATURE_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}
"""Bytes of features that are made at once. All terms are read again for each such chunk, and a GPU would wait."""

_FEW_FEATURES = {"cpu": 1 << 16, "cuda": 1 << 22}
"""Number of features of a layer up to which the calls take longer than the work in them."""

FEW_ROWS = 16
"""Number of tokens up to which the terms are read in pieces, see `product`."""

_PIECE_ROWS = 32
"""Rows of a piece. If the hidden size is no multiple of it, a piece has the largest power of two that divides both."""

_FEWEST_PIECE_ROWS = 8
"""If the hidden size gives smaller pieces, the terms are read as one product."""

READS_IN_PIECES: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
"""Whether MKL computes the products. It is not known what pieces gain under another BLAS."""


def _is_exporting() -> bool:
    """Whether the layer is being exported. One graph must then hold for every number of tokens."""
    is_exporting = getattr(torch.compiler, "is_exporting", None)
    return is_exporting is not None and bool(is_exporting())


def basis_features(
    basis: str, widths: Sequence[int], t: Tensor, factor: Tensor, out: Tensor | None = None
) -> list[Tensor]:
    """`factor * P_n(t)` for n = 0 .. len(widths) - 1, each [..., widths[n]].

    In the basis `taylor`, P_n = t^n. In the basis `chebyshev`, P_n = s_n T_n with s = + + - - + + ..., so that
    P_{n+1} = P_{n-1} +- 2 t P_n is one fused step. At the end, P_2 and P_4 have their value at t = 0 subtracted. They
    are then small there, and little is lost when they are rounded.

    Args:
        basis: `chebyshev` or `taylor`.
        widths: Number of neurons that have a term of order n, falling.
        t: [..., F].
        factor: [..., F].
        out: [..., sum(widths)], which receives the features side by side. None to allocate each of them.
    """
    places: Sequence[Tensor | None] = (
        [None] * len(widths) if out is None else torch.split_with_sizes(out, list(widths), dim=-1)
    )
    features = [torch.mul(factor, 1, out=places[0]), torch.mul(factor, t, out=places[1])]
    if basis == "chebyshev":
        t = 2 * t
    for n in range(2, len(widths)):
        k = widths[n]
        step, last = t[..., :k], features[n - 1][..., :k]
        if basis == "chebyshev":
            sign = 1 if n % 2 else -1
            features.append(torch.addcmul(features[n - 2][..., :k], step, last, value=sign, out=places[n]))
        else:
            features.append(torch.mul(step, last, out=places[n]))
    if basis == "chebyshev":
        for n in range(2, min(5, len(widths)), 2):
            features[n] = torch.sub(features[n], factor[..., : widths[n]], out=places[n])
    return features


class Columns(NamedTuple):
    """How `closed_form_features` computes each of the K stacked features, all tensors [K].

    Attributes:
        neuron: int64, the neuron of the feature.
        order: float32, its order.
        turn: float32, the angle that turns the cosine into a sine for odd orders.
        offset: float32, the number that is subtracted, which is 1 for orders 2 and 4 and 0 for all others.
    """

    neuron: Tensor
    order: Tensor
    turn: Tensor
    offset: Tensor

    @classmethod
    def of(cls, widths: Sequence[int], device: torch.device) -> Columns:
        """The columns of a layer with these `widths`, on `device`."""
        neuron = torch.cat([torch.arange(width) for width in widths])
        order = torch.repeat_interleave(torch.arange(len(widths), dtype=torch.float32), torch.tensor(widths))
        # sin(x) is cos(x - pi / 2).
        turn = order % 2 * (-torch.pi / 2)
        offset = ((order == 2) | (order == 4)).float()
        return cls(*(part.to(device) for part in (neuron, order, turn, offset)))


def closed_form_features(basis: str, columns: Columns, t: Tensor, factor: Tensor) -> Tensor:
    """The features of `basis_features` side by side, [..., K], for t in [-1, 1].

    The number of calls is small and does not depend on the number of orders. In the basis `chebyshev`, with
    psi = arcsin(t), P_n is cos(n psi) for even n and sin(n psi) for odd n. P_2 and P_4 have 1 subtracted.
    """
    factor = factor.index_select(-1, columns.neuron)
    if basis == "taylor":
        return torch.pow(t.index_select(-1, columns.neuron), columns.order).mul_(factor)
    psi = torch.asin(t).index_select(-1, columns.neuron)
    return torch.addcmul(columns.turn, columns.order, psi).cos_().sub_(columns.offset).mul_(factor)


def product(layer: nn.Module, features: Tensor) -> Tensor:
    """The output of `layer` for features [T, K]. A plain linear layer is read in pieces if all cores can then read it.

    On an AMD processor, MKL computes a float32 product with few rows on one thread, which reads at half the speed of
    the memory. It distributes many small products over all threads. A layer that was quantized, adapted or hooked is
    called as it is. So is a layer that needs gradients, because they would take memory for every piece.
    """
    if not _is_read_in_pieces(layer, features):
        called: Tensor = layer(features)
        return called
    weight, bias = layer.weight, layer.bias
    pieces = weight.view(-1, math.gcd(len(weight), _PIECE_ROWS), weight.shape[1]).mT
    tokens = features.expand(len(pieces), -1, -1)
    if torch.compiler.is_compiling():
        # The compiler turns `bmm` into a kernel in which every row computes all features anew.
        output = torch.baddbmm(features.new_zeros(1), tokens, pieces)
    else:
        output = torch.bmm(tokens, pieces)
    output = output.transpose(0, 1).reshape(features.shape[0], len(weight))
    return output if bias is None else output + bias


def _is_read_in_pieces(layer: nn.Module, features: Tensor) -> TypeGuard[nn.Linear]:
    """Whether `layer` is a plain float32 linear layer with many rows on a CPU, and `features` are float32 and few."""
    return (
        READS_IN_PIECES
        and (torch.compiler.is_compiling() or torch.get_num_threads() > 1)
        and type(layer) is nn.Linear
        and type(layer.weight) in (Tensor, nn.Parameter)
        and not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))
        and features.device.type == "cpu"
        and features.dtype == layer.weight.dtype == torch.float32
        and features.shape[-1] == layer.weight.shape[1]
        and math.gcd(layer.weight.shape[0], _PIECE_ROWS) >= _FEWEST_PIECE_ROWS
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (features.requires_grad or layer.weight.requires_grad))
        and not _is_exporting()
        and features.shape[0] <= FEW_ROWS
    )


class TaylorMLP(nn.Module):
    """A gated or plain MLP whose output layer reads series features.

    Args:
        hidden_size: H.
        basis: `chebyshev` or `taylor`.
        widths: Number of neurons that have a term of order n, falling. Every protected neuron has orders 0 and 1.
        activation: Name of phi, one of `SMOOTH` or `KINKED`. The series of a kinked phi is its polynomial and holds
            everywhere right of the kink.
        gated: Whether a second input layer makes the factor u.
        biases: Which of the layers `gate`, `up` and `terms` have a bias.
        clear: Number of unprotected neurons. They have no terms and keep their output weights.
    """

    center: Tensor
    radius: Tensor
    carrier: Tensor

    def __init__(
        self,
        hidden_size: int,
        basis: str,
        widths: Sequence[int],
        activation: str,
        gated: bool,
        biases: Sequence[str] = (),
        clear: int = 0,
    ) -> None:
        super().__init__()
        self.basis = basis
        self.widths = list(widths)
        self.clear = clear
        self.kinked = activation in KINKED
        self.phi = KINKED[activation] if self.kinked else SMOOTH[activation]
        neurons, columns = widths[0] + clear, sum(widths) + clear
        self._columns: Columns | None = None
        self.gate = nn.Linear(hidden_size, neurons, bias="gate" in biases)
        self.up = nn.Linear(hidden_size, neurons, bias="up" in biases) if gated else None
        self.terms = nn.Linear(columns, hidden_size, bias="terms" in biases)
        for name, rows in INTERVAL_PARAMETERS.items():
            empty = torch.empty((rows, widths[0]) if rows else (widths[0],))
            self.register_parameter(name, nn.Parameter(empty, requires_grad=False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TaylorMLP:
        """Move or cast like any module, and drop the columns, which would stay behind on the old device."""
        self._columns = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy or pickle. It leaves out the columns, which are computed again when they are needed."""
        return {**self.__dict__, "_columns": None}

    def features(self, z: Tensor, factor: Tensor | None, out: Tensor | None = None) -> Tensor:
        """Features [..., K] float32 of all columns for pre-activations `z` and gate factors `factor` [..., F].

        With `out` [..., sum(widths)], into which the features of the series may be written, they are made in less
        memory and time, but without a gradient.
        """
        z = z.float()
        factor = torch.ones_like(z) if factor is None else factor.float()
        if not self.clear:
            return self._series(z, factor, out)
        protected = self.widths[0]
        series = self._series(z[..., :protected], factor[..., :protected], out)
        return torch.cat([series, self.phi(z[..., protected:]) * factor[..., protected:]], dim=-1)

    def _series(self, z: Tensor, factor: Tensor, out: Tensor | None) -> Tensor:
        """Features [..., sum(widths)] of the protected neurons."""
        center, radius = self.center.float(), self.radius.float()
        if self.kinked:
            inside, outside = z.clamp(min=0), None
            factor = factor * (z > 0)
        else:
            inside = z.clamp(center - radius, center + radius)
            outside = (self.phi(z) - self.phi(inside)) * factor
        t = (inside - center) / radius
        if out is None:
            parts = basis_features(self.basis, self.widths, t, factor)
            if outside is not None:
                parts[:2] = [part + outside * carrier for part, carrier in zip(parts, self.carrier, strict=False)]
            return torch.cat(parts, dim=-1)
        if outside is not None and out.numel() <= _FEW_FEATURES.get(z.device.type, 0):
            if self._columns is None or self._columns.order.device != z.device:
                self._columns = Columns.of(self.widths, z.device)
            out = closed_form_features(self.basis, self._columns, t.clamp(-1, 1), factor)
        else:
            basis_features(self.basis, self.widths, t, factor, out)
        if outside is not None:
            first_two = out[..., : 2 * self.widths[0]].view(*out.shape[:-1], 2, self.widths[0])
            first_two.addcmul_(outside.unsqueeze(-2), self.carrier.float())
        return out

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Output [..., H] of the MLP for hidden states [..., H]."""
        flat = hidden_states.reshape(-1, hidden_states.shape[-1])
        z = self.gate(flat)
        factor = None if self.up is None else self.up(flat)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            output = product(self.terms, self._stored(self.features(z, factor), flat.dtype))
        else:
            output = self._in_chunks(z, factor, flat.dtype)
        return output.reshape(*hidden_states.shape[:-1], output.shape[-1])

    @staticmethod
    def _stored(features: Tensor, dtype: torch.dtype) -> Tensor:
        """Features in `dtype`, kept finite. Values of float32 can overflow float16, and an infinity would spread."""
        if dtype == torch.float16:
            largest = torch.finfo(dtype).max
            features = features.clamp(-largest, largest)
        return features.to(dtype)

    def _in_chunks(self, z: Tensor, factor: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The output, made a few rows of `z` at a time through one buffer, as features take many times the input."""
        rows = max(1, min(len(z), _FEATURE_BYTES.get(z.device.type, _FEATURE_BYTES["cpu"]) // (4 * sum(self.widths))))
        buffer = torch.empty(rows, sum(self.widths), device=z.device, dtype=torch.float32)
        parts: list[Tensor] = []
        for start in range(0, max(1, len(z)), rows):
            chunk = z[start : start + rows]
            gates = None if factor is None else factor[start : start + rows]
            parts.append(product(self.terms, self._stored(self.features(chunk, gates, buffer[: len(chunk)]), dtype)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class TaylorExperts(nn.ModuleList):
    """The experts of a mixture, each a Taylor MLP, in place of a module with stacked expert tensors."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Output [T, H] for tokens [T, H], each routed to experts [T, k] with weights [T, k]."""
        output = torch.zeros_like(hidden_states)
        # A search for the tokens of an expert waits for the GPU, so experts without tokens are left out.
        for number in torch.unique(top_k_index).tolist():
            token, place = torch.where(top_k_index == number)
            weighted = self[number](hidden_states[token]) * top_k_weights[token, place, None]
            output.index_add_(0, token, weighted.to(output.dtype))
        return output


def install(model: nn.Module, taylor: Mapping[str, Any]) -> None:
    """Put empty Taylor MLPs into `model`. `taylor` is the `taylor_mlp` entry of its config, which lists them."""
    for path in taylor["experts"]:
        model.set_submodule(path, TaylorExperts())
    for path, widths in taylor["layers"].items():
        mlp = TaylorMLP(
            taylor["hidden_size"],
            taylor["basis"],
            widths,
            taylor["activation"],
            taylor["gated"],
            taylor["biases"],
            taylor["clear"].get(path, 0),
        )
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        if isinstance(owner, TaylorExperts):
            owner.append(mlp)
        else:
            setattr(owner, name, mlp)
    for path in taylor["bypassed"]:
        model.set_submodule(path, nn.Identity())
    _guard(model, taylor["guard"])


def _guard(model: nn.Module, name: str) -> None:
    """Register one number under the name of protected weights, so that the plain architecture fails to load."""
    path, _, last = name.rpartition(".")
    parent, _, child = path.rpartition(".")
    owner = model.get_submodule(parent)
    if not hasattr(owner, child):
        owner.add_module(child, nn.Module())
    owner.get_submodule(child).register_parameter(last, nn.Parameter(torch.zeros(1), requires_grad=False))
