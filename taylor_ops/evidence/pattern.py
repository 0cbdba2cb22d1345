"""The pattern of a mark: a sign for every output weight, from the key, the model, the version and the recipient.

The sign of the weight in row i of neuron j is S[i, j] C[bucket[i, j]]. S and the buckets follow from key and model, the
65 536 signs C from key, model, version and recipient: whoever traces adds up a suspect once, however many recipients
there are. Neurons count in an order of their own, by the signs of their input weights, which no permutation and no data
type changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taylor_ops.evidence.key import Key

BUCKETS = 1 << 16


@dataclass(frozen=True)
class LayerPattern:
    """What key and model give for one MLP: signs S (int8) and buckets (uint16), both [H, F] in the order of `places`."""

    signs: NDArray[np.int8]
    buckets: NDArray[np.uint16]

    def of(self, code: NDArray[np.int8]) -> Tensor:
        """The signs [H, F] of a recipient's copy, int8."""
        return torch.from_numpy(self.signs * code[self.buckets])


def layer_pattern(key: Key, model: str, path: str, shape: tuple[int, int]) -> LayerPattern:
    """The pattern of the MLP at `path` of `model`, whose output weights have `shape` [H, F]."""
    count = shape[0] * shape[1]
    bits = np.frombuffer(key.stream(-(-count // 8), "signs", model, path), np.uint8)
    buckets = np.frombuffer(key.stream(2 * count, "buckets", model, path), "<u2").astype(np.uint16, copy=False)
    return LayerPattern(_signs(bits)[:count].reshape(shape), buckets.reshape(shape))


def code_of(key: Key, model: str, version: str, recipient: str) -> NDArray[np.int8]:
    """The 65 536 signs of one recipient's copy of one version."""
    return _signs(np.frombuffer(key.stream(BUCKETS // 8, "code", model, version, recipient), np.uint8))


def _signs(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    bits = np.unpackbits(packed).view(np.int8)
    return 1 - 2 * bits


def places(gate: Tensor) -> Tensor:
    """For every neuron of input weights `gate` [F, H] its place in the order of the pattern: [F] int64."""
    rows = _sign_rows(gate)
    order = sorted(range(len(rows)), key=rows.__getitem__)
    result = torch.empty(len(rows), dtype=torch.int64)
    result[torch.tensor(order)] = torch.arange(len(rows))
    return result


def model_of(gate: Tensor) -> str:
    """What a model is called in patterns, by the input weights [F, H] of its first MLP in any order of neurons."""
    digest = hashlib.sha256()
    for row in sorted(_sign_rows(gate)):
        digest.update(row)
    return digest.hexdigest()


def _sign_rows(gate: Tensor) -> list[bytes]:
    packed = np.packbits(torch.signbit(gate).numpy(), axis=1)
    return [row.tobytes() for row in packed]
