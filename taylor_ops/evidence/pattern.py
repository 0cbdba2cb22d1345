"""The pattern of a mark: which output weights carry it, and the sign of each, from key, model, version and recipient.

One weight in 256 is marked. Key and model determine which weights, and a sign S and a bucket for each of them. Key,
model, version and recipient determine 65 536 signs C. A marked weight goes up or down by the sign S C[bucket]. A trace
therefore adds up a suspect once, however many recipients there are.

Few weights move by much, rather than all weights by little. Under noise, both are found equally well at equal cost. But
a mark larger than half a step of bfloat16 survives when weights are rounded to bfloat16, even if the original was
stored in it.

The pattern has its own order of neurons, by the signs of their input weights. No permutation and no data type changes
this order.
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
    """The m marked weights among the output weights [H, F] of one MLP, row by row; they follow from key and model.

    Attributes:
        row: Row of each weight, [m] int64.
        neuron: Its neuron in the order of `places`, [m] int64.
        sign: Its sign S, [m] int8.
        bucket: Its bucket, [m] uint16.
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
    """The place of every neuron of input weights `gate` [F, H] in the order of the pattern: [F] int64."""
    order = neurons_in_order(gate)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order))
    return result


def neurons_in_order(gate: Tensor) -> Tensor:
    """The neurons of input weights `gate` [F, H] in the order of the pattern: [F] int64."""
    rows = _sign_rows(gate)
    return torch.tensor(sorted(range(len(rows)), key=rows.__getitem__))


def model_of(gate: Tensor) -> str:
    """The name of a model in patterns, from the input weights [F, H] of its first MLP in any order of neurons."""
    digest = hashlib.sha256()
    for row in sorted(_sign_rows(gate)):
        digest.update(row)
    return digest.hexdigest()


def name_of(original: Original) -> str:
    """The name of an original in patterns, which its bundles share."""
    return model_of(original.weights(min(original.mlps, key=lambda mlp: mlp.path)).gate)


def _sign_rows(gate: Tensor) -> list[bytes]:
    packed = np.packbits(torch.signbit(gate).numpy(), axis=1)
    return [row.tobytes() for row in packed]
