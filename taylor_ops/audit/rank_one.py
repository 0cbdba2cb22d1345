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
from taylor_ops.architectures import ARCHITECTURES, Architecture
from taylor_ops.audit.result import AttackResult, Progress, Score
from taylor_ops.checkpoint import Checkpoint
from taylor_ops.config import Basis
from taylor_ops.expansion import evaluate
from taylor_ops.files import read_json

_SOURCE = "arXiv 2506.19874"
_ASSUMPTIONS = "the attacker has the bundle, and the name of the activation, which its config states"
_POINTS = 65


def attack(bundle: Path, original: Path, progress: Progress) -> AttackResult:
    """Recover the output weights of every layer of `bundle`; `original` only scores the result."""
    config = read_json(bundle / "config.json")
    architecture = ARCHITECTURES[config["model_type"].removeprefix("taylor_")]
    activation = activation_named(config[architecture.activation])
    released, truth = Checkpoint(bundle), Checkpoint(original)
    layers: dict[str, list[int]] = config["taylor_mlp"]["layers"]
    score, seconds = Score(), 0.0
    for done, (path, widths) in enumerate(layers.items()):
        start = time.perf_counter()
        recovered = recover_layer(released, architecture, path, widths, config["taylor_mlp"]["basis"], activation)
        seconds += time.perf_counter() - start
        order = _original_places(
            released, truth, [f"{path}.{role}" for role in (architecture.gate, architecture.up) if role]
        )
        true = truth.tensor(f"{path}.{architecture.down}.weight")
        score.add(recovered, true[:, order])
        progress(done + 1, len(layers))
    return score.result("rank_one", _SOURCE, _ASSUMPTIONS, seconds)


def recover_layer(
    released: Checkpoint,
    architecture: Architecture,
    path: str,
    widths: list[int],
    basis: Basis,
    activation: Activation,
) -> Tensor:
    """Output weights [H, F] float32 of one layer, columns in the bundle's order of neurons.

    The terms of a neuron are w c^T up to rounding: their leading singular vectors give w and c up to one factor, which
    is the one that makes the series with coefficients c equal the activation on the neuron's interval.
    """
    theta = released.tensor(f"{path}.{architecture.down}.weight").float()
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


def _original_places(released: Checkpoint, truth: Checkpoint, inputs: list[str]) -> list[int]:
    """For each place of the bundle the neuron of the original whose input weights are the same."""
    ours, theirs = _input_weights(released, inputs), _input_weights(truth, inputs)
    place = {_key(row): index for index, row in enumerate(theirs.to(ours.dtype))}
    return [place[_key(row)] for row in ours]


def _input_weights(checkpoint: Checkpoint, inputs: list[str]) -> Tensor:
    """All that makes the input of each neuron [F, ...]: gate and factor weights side by side, and their biases."""
    weights = [checkpoint.tensor(f"{name}.weight") for name in inputs]
    biases = [checkpoint.tensor(f"{name}.bias")[:, None] for name in inputs if f"{name}.bias" in checkpoint]
    return torch.cat(weights + biases, dim=1)


def _key(row: Tensor) -> bytes:
    return bytes(row.contiguous().view(torch.uint8).numpy().tobytes())
