"""An a-priori bound on the error of one MLP's output: truncation, rounding of the stored terms, captured ranges.

The MLP computes y = sum_j w_j u_j phi(z_j). Its bundle computes yhat = sum_j u_j sum_n Theta_nj P_n(t_j) with
Theta_nj = round(w_j c_nj). Both use w_j in the released dtype. By the triangle inequality
||y - yhat||_2 <= truncation + rounding, for every input with |u_j| <= factor_j and z_j between low_j and high_j, inside
its interval or outside.

The bound covers the truncation of the series and the rounding of the stored terms and carriers. It does not cover the
rounding of z, u, features and intermediate sums, in whatever precision the bundle runs. Validation measures that. The
bundle must not flush subnormal terms to zero. A term or carrier that overflows the dtype makes the bound infinite.
Everything is float64 on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from taylor_ops.config.conversion import Basis
from taylor_ops.machine.threads import on_one_thread
from taylor_ops.series.expansion import Expansion, coefficients, evaluate, offsets, signs

_FAILURE = 1e-9
_DEVIATIONS = math.sqrt(2 * math.log(2 / _FAILURE))
# Over all smooth activations, the largest |phi'| is 1.129 (gelu) and the largest -phi is 0.2785 (silu).
_STEEPEST = 1.13
_LOWEST = 0.279


@dataclass(frozen=True)
class OutputWeights:
    """The measures of output weights W [H, F] that the bound needs.

    Attributes:
        norms: [F], L2 norm of each column w_j.
        peaks: [F], largest magnitude in each column.
        rows: H.
        alignment: Spectral norm of W with its columns scaled to norm 1, from 1 (orthogonal) to sqrt(F) (parallel).
            Random columns have about 1 + sqrt(F / H).
    """

    norms: Tensor
    peaks: Tensor
    rows: int
    alignment: float

    @classmethod
    def of(cls, weight: Tensor) -> OutputWeights:
        """Measure `weight` [H, F] of any dtype. Its alignment comes from the smaller of the two Gram matrices."""
        columns = weight.double()
        norms = torch.linalg.vector_norm(columns, dim=0)
        columns = columns / torch.where(norms > 0, norms, 1.0)
        gram = columns @ columns.T if len(columns) < len(norms) else columns.T @ columns
        alignment = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))
        return cls(norms, weight.abs().amax(0).double(), len(weight), alignment)

    def of_columns(self, selected: Tensor) -> OutputWeights:
        """The measures of the columns whose `selected` [F] is true. The alignment stays as an upper bound."""
        return replace(self, norms=self.norms[selected], peaks=self.peaks[selected])


@dataclass(frozen=True)
class Bound:
    """Bounds [...] on ||y - yhat||_2, as fractions of a given output norm.

    Attributes:
        truncation: Bound on the truncation error, for every input.
        rounding: The smaller of `certain_rounding` and a bound that holds for all but 1e-9 of tokens (`layer_bound`).
        certain_rounding: Bound on the rounding error, for every input.
    """

    truncation: Tensor
    rounding: Tensor
    certain_rounding: Tensor

    @property
    def total(self) -> Tensor:
        """Truncation and rounding together."""
        return self.truncation + self.rounding


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to nearest in `dtype`: 2^-24 float32, 2^-11 float16, 2^-8 bfloat16."""
    return torch.finfo(dtype).eps / 2


@on_one_thread
def layer_bound(
    expansion: Expansion,
    orders: Tensor,
    weights: OutputWeights,
    factor: Tensor,
    output_norm: float,
    dtype: torch.dtype,
    low: Tensor | None = None,
    high: Tensor | None = None,
) -> Bound:
    """Bound the error of one layer.

    Truncation. The activation of neuron j is wrong by at most d_j, the `errors` of the expansion at its order. This
    holds outside its interval too. There a smooth phi continues with phi(z) - phi(end). A kinked phi is 0 on the left,
    and its series continues on the right. With s_j = ||w_j|| |u_j| d_j the output is wrong by at most sum_j s_j. It is
    also wrong by at most alignment * ||s||_2, as sum_j w_j x_j = W' (||w_j|| x_j)_j with the scaled columns W'. The
    smaller of the two counts.

    Rounding. An entry x is stored with an error of at most v |x| + v m, with the unit roundoff v and the smallest
    normal number m. So neuron j adds at most b_j = |u_j| sum_n (v ||w_j|| |c_nj| + sqrt(H) v m) |P_n|. In the interval
    |P_n| <= 1, or 2 if an offset is subtracted (`_largest`). Right of the interval of a kinked activation |P_n| is
    larger. Outside the interval of a smooth activation, Theta_k also carries o = phi(z) - phi(end) (`_carried`) through
    the rounded 1 / c_kj, which adds |u_j| |o| (||w_j|| (2 v + v^2) + (1 + v) sqrt(H) v m / |c_kj|). The rounding error
    of the output is certainly at most sum_j b_j. Assume that the errors of different neurons are independent with mean
    zero (Higham & Mary, SISC 41, 2019). Then the inequality of Pinelis (Ann. Probab. 22, 1994, theorem 3.5),
    P(||sum_j X_j|| >= r) <= 2 exp(-r^2 / (2 sum_j b_j^2)), bounds the rounding error by sqrt(2 ln(2 / 1e-9)) ||b||_2
    for all but 1e-9 of the inputs that were not chosen against the errors. The terms of one neuron are not assumed to
    be independent, because coefficients that differ by a power of two have the same errors.

    Args:
        expansion: Expansions of the F neurons.
        orders: [F], order of each neuron.
        weights: Measures of the output weights.
        factor: [..., F], the largest |u_j|.
        output_norm: A typical ||y||_2, above 0, to which the error is relative.
        dtype: Data type of the terms.
        low: [..., F], the least z_j. None if no z_j leaves its interval.
        high: [..., F], the largest z_j. None if no z_j leaves its interval.
    """
    v, largest = unit_roundoff(dtype), torch.finfo(dtype).max
    least = math.sqrt(weights.rows) * v * torch.finfo(dtype).smallest_normal
    size = coefficients(expansion, orders).abs()
    leading = size[:2].amax(0)
    activation_error = expansion.errors.gather(0, orders[None])[0]
    stored = torch.where(torch.arange(len(size))[:, None] <= orders, v * weights.norms * size + least, 0.0)
    neuron_error = _largest(expansion.basis, stored, torch.ones_like(leading))
    if low is not None and high is not None and expansion.kinked:
        neuron_error = _largest(expansion.basis, stored, ((high - expansion.center) / expansion.radius).clamp_min(1.0))
    elif low is not None and high is not None:
        carried = _carried(expansion, low, high)
        neuron_error = neuron_error + carried * (weights.norms * (2 * v + v * v) + (1 + v) * least / leading)
    overflows = (weights.peaks * size.amax(0) > largest) | (1 / leading > largest)
    shares = _product(weights.norms * factor.abs(), activation_error)
    truncation = torch.minimum(shares.sum(-1), weights.alignment * torch.linalg.vector_norm(shares, dim=-1))
    shares = torch.where(overflows, torch.inf, factor.abs() * neuron_error)
    certain = shares.sum(-1)
    rounding = torch.minimum(certain, _DEVIATIONS * torch.linalg.vector_norm(shares, dim=-1))
    return Bound(truncation / output_norm, rounding / output_norm, certain / output_norm)


def _largest(basis: Basis, size: Tensor, t: Tensor) -> Tensor:
    """`sum_n size_n max |P_n|` over [-t, t] for sizes [N + 1, F] >= 0 and t [..., F] >= 1."""
    if basis == "taylor":
        return evaluate(basis, size, t)
    sign, offset = signs(len(size)), offsets(len(size))
    # s_n P_n is T_n - s_n offset_n, but the sum needs T_n + offset_n.
    return evaluate(basis, size * sign[:, None], t) + (offset * (1 + sign)) @ size


def equal_shares(
    tolerance: float, rounding: float, weights: OutputWeights, factor: Tensor, output_norm: float
) -> Tensor:
    """Largest errors [F] of phi with which a layer keeps `tolerance`, if every neuron adds equally to the bound.

    Neurons without influence get inf. All others get 0 if rounding uses up the tolerance. Equal shares need the fewest
    terms if all series converge equally fast.

    Args:
        tolerance: Bound of the layer that is allowed, relative to `output_norm` as in `Bound`.
        rounding: The part of the tolerance that rounding takes. The rest is for truncation.
        weights: Measures of the output weights.
        factor: [F], the largest |u_j|.
        output_norm: A typical ||y||_2.
    """
    influence = weights.norms * factor.abs()
    active = int((influence > 0).sum())
    spent = min(active, weights.alignment * math.sqrt(active))
    share = max(0.0, tolerance - rounding) * output_norm / max(spent, 1.0)
    return torch.where(influence > 0, share / influence, torch.inf)


def _carried(expansion: Expansion, low: Tensor, high: Tensor) -> Tensor:
    """Bound [..., F] on |phi(z) - phi(end)| for z that lies outside its interval, between `low` and `high` [..., F]."""
    left_end, right_end = expansion.center - expansion.radius, expansion.center + expansion.radius
    right = _STEEPEST * (high - right_end).clamp_min(0.0)
    left = torch.minimum(_STEEPEST * (left_end - low).clamp_min(0.0), left_end.clamp_min(0.0) + _LOWEST)
    return torch.maximum(left, right)


def _product(weight: Tensor, error: Tensor) -> Tensor:
    """`weight * error`, and 0 for a weight of 0 with an infinite error."""
    return torch.where(weight == 0, 0.0, weight * error)


def moved_by_chance(shares: Tensor) -> float:
    """Bound on the norm of a sum of independent terms with mean zero, which holds in all but 1e-9 of cases.

    It follows from the inequality of Pinelis, see `layer_bound`.

    Args:
        shares: [F], the largest norm of each term.
    """
    return min(float(shares.sum()), _DEVIATIONS * float(torch.linalg.vector_norm(shares)))
