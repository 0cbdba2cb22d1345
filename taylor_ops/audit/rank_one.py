"""Rank-one factorisation across orders: the terms of a neuron are one column of the output weights, rescaled.

Needs the bundle alone, no data and no queries. Follows parameter extraction from TaylorMLP releases, arXiv 2506.19874.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.activations import Activation, activation_named
from taylor_ops.audit.result import AttackResult, Progress, Score
from taylor_ops.checkpoint import Checkpoint
from taylor_ops.config import Basis
from taylor_ops.expansion import evaluate
from taylor_ops.files import read_json
from taylor_ops.original import MlpWeights, Original

_SOURCE = "arXiv 2506.19874"
_ASSUMPTIONS = "the attacker has the bundle, and the name of the activation, which its config states"
_POINTS = 65


def attack(bundle: Path, original: Path, progress: Progress) -> AttackResult:
    """Recover the output weights of every layer of `bundle`; `original` only scores the result."""
    config = read_json(bundle / "config.json")
    released, truth = Checkpoint(bundle), Original(original)
    activation = activation_named(config[truth.architecture.activation])
    taylor = config["taylor_mlp"]
    score, seconds = Score(), 0.0
    for done, mlp in enumerate(truth.mlps):
        start = time.perf_counter()
        recovered = recover_layer(released, mlp.path, taylor["layers"][mlp.path], taylor["basis"], activation)
        seconds += time.perf_counter() - start
        weights = truth.weights(mlp)
        score.add(recovered, weights.down[:, _original_places(released, mlp.path, weights)[: recovered.shape[1]]])
        progress(done + 1, len(truth.mlps))
    return score.result("rank_one", _SOURCE, _ASSUMPTIONS, seconds)


def recover_layer(
    released: Checkpoint,
    path: str,
    widths: list[int],
    basis: Basis,
    activation: Activation,
) -> Tensor:
    """Withheld output weights [H, P] float32 of one layer, columns in the bundle's order of neurons.

    The terms of a neuron are w c^T up to rounding: their leading singular vectors give w and c up to one factor, which
    is the one that makes the series with coefficients c equal the activation on the neuron's interval.
    """
    theta = released.tensor(f"{path}.terms.weight").float()
    center = released.tensor(f"{path}.center").double()
    radius = released.tensor(f"{path}.radius").double()
    t = torch.linspace(-1, 1, _POINTS, dtype=torch.float64)[:, None]
    recovered = torch.empty(theta.shape[0], widths[0])
    for first, last, columns in _neurons_of_equal_order(widths):
        stacked = theta[:, columns].reshape(theta.shape[0], len(columns) // (last - first), last - first)
        gram = torch.einsum("hnf,hmf->fnm", stacked, stacked).double()
        coefficients = torch.linalg.eigh(gram).eigenvectors[:, :, -1].T
        series = evaluate(basis, coefficients, t)
        target = activation.value(center[first:last] + radius[first:last] * t)
        factor = (series * target).sum(0) / series.square().sum(0)
        recovered[:, first:last] = torch.einsum("hnf,nf->hf", stacked, (coefficients / factor).float())
    return recovered


def _neurons_of_equal_order(widths: list[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Runs first .. last of places with the same order, and their columns, order by order."""
    starts = [sum(widths[:n]) for n in range(len(widths))]
    for n, width in enumerate(widths):
        first, last = (widths[n + 1] if n + 1 < len(widths) else 0), width
        if first < last:
            yield first, last, [starts[m] + place for m in range(n + 1) for place in range(first, last)]


def _original_places(released: Checkpoint, path: str, weights: MlpWeights) -> list[int]:
    """For each place of the bundle the neuron of the original whose input weights and biases are the same."""
    inputs = {"gate.weight": weights.gate, "up.weight": weights.up}
    biases = {"gate.bias": weights.gate_bias, "up.bias": weights.up_bias}
    columns = [(name, tensor) for name, tensor in inputs.items() if tensor is not None]
    columns += [(name, tensor[:, None]) for name, tensor in biases.items() if tensor is not None]
    ours = torch.cat([released.tensor(f"{path}.{name}").reshape(len(tensor), -1) for name, tensor in columns], dim=1)
    theirs = torch.cat([tensor for _, tensor in columns], dim=1).to(ours.dtype)
    place = {_key(row): index for index, row in enumerate(theirs)}
    return [place[_key(row)] for row in ours]


def _key(row: Tensor) -> bytes:
    return bytes(row.contiguous().view(torch.uint8).numpy().tobytes())
