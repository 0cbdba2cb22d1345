"""The pattern of a mark: which output weights carry it, and the sign of each, from key, model, version and recipient.

One weight in 256 is marked. Which ones, a sign S and a bucket for each follow from key and model; the 65 536 signs C
from key, model, version and recipient; a marked weight goes up or down by S C[bucket]. Whoever traces adds up a suspect
once, however many recipients there are. Few weights are moved by much rather than all by little: under noise both are
found equally well at equal cost, and a step that is larger than half of one of bfloat16 stays when weights are rounded
to it, also those of an original that was stored in it.

Neurons count in an order of their own, by the signs of their input weights, which no permutation and no data type
changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taylor_ops.evidence.key import Key
from taylor_ops.model.original import Original

BUCKETS = 1 << 16


@dataclass(frozen=True)
class LayerPattern:
    """What key and model give for the output weights [H, F] of one MLP, neurons in the order of `places`.

    row, neuron: [m] int64, of each marked weight, row by row. sign: [m] int8, S. bucket: [m] uint16.
    """

    row: NDArray[np.int64]
    neuron: NDArray[np.int64]
    sign: NDArray[np.int8]
    bucket: NDArray[np.uint16]

    def of(self, code: NDArray[np.int8]) -> NDArray[np.int8]:
        """The direction [m] of each marked weight in a recipient's copy."""
        return self.sign * code[self.bucket]


def layer_pattern(key: Key, model: str, path: str, shape: tuple[int, int]) -> LayerPattern:
    """The pattern of the MLP at `path` of `model`, whose output weights have `shape` [H, F]."""
    height, width = shape
    marked = np.flatnonzero(np.frombuffer(key.stream(height * width, "places", model, path), np.uint8) == 0)
    drawn = np.frombuffer(key.stream(3 * len(marked), "signs", model, path), np.uint8).reshape(-1, 3)
    bucket = (256 * drawn[:, 0].astype(np.uint16) + drawn[:, 1]).astype(np.uint16)
    return LayerPattern(marked // width, marked % width, _signs(np.bitwise_and(drawn[:, 2], np.uint8(1))), bucket)


def code_of(key: Key, model: str, version: str, recipient: str) -> NDArray[np.int8]:
    """The 65 536 signs of one recipient's copy of one version."""
    packed = np.frombuffer(key.stream(BUCKETS // 8, "code", model, version, recipient), np.uint8)
    return _signs(np.unpackbits(packed))


def _signs(bits: NDArray[np.uint8]) -> NDArray[np.int8]:
    return (1 - 2 * bits.astype(np.int8)).astype(np.int8)


def places(gate: Tensor) -> Tensor:
    """For every neuron of input weights `gate` [F, H] its place in the order of the pattern: [F] int64."""
    order = neurons_in_order(gate)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order))
    return result


def neurons_in_order(gate: Tensor) -> Tensor:
    """The neurons of input weights `gate` [F, H] in the order of the pattern: [F] int64."""
    rows = _sign_rows(gate)
    return torch.tensor(sorted(range(len(rows)), key=rows.__getitem__))


def model_of(gate: Tensor) -> str:
    """What a model is called in patterns, by the input weights [F, H] of its first MLP in any order of neurons."""
    digest = hashlib.sha256()
    for row in sorted(_sign_rows(gate)):
        digest.update(row)
    return digest.hexdigest()


def name_of(original: Original) -> str:
    """What patterns call the model of an original: the same as its bundles are called."""
    return model_of(original.weights(min(original.mlps, key=lambda mlp: mlp.path)).gate)


def _sign_rows(gate: Tensor) -> list[bytes]:
    packed = np.packbits(torch.signbit(gate).numpy(), axis=1)
    return [row.tobytes() for row in packed]
