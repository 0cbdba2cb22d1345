"""Run one attack over a bundle, layer by layer, and score what it recovers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.audit.layer import Attack, ProtectedLayer
from taylor_ops.audit.result import AttackResult, Rebuilt, Score
from taylor_ops.audit.target import Target
from taylor_ops.audit_config import Audit
from taylor_ops.original import Original
from taylor_ops.resources import measured


class Run:
    """One attack at work: one layer in memory at a time, timed by itself and scored by the original on the way."""

    def __init__(self, attack: Attack, truth: Original, settings: Audit, report: Callable[[int], None]) -> None:
        self._attack, self._truth, self._settings, self._report = attack, truth, settings, report
        self._true = {mlp.path: mlp for mlp in truth.mlps}
        self._score, self._seconds, self._peak, self._layers = Score(), 0.0, 0, 0
        self._open: list[str] = []
        self._found: int | None = None

    def over(self, target: Target, rebuild: bool) -> Path | None:
        """Attack every layer; returns the folder of the rebuilt model, where one is wanted."""
        with measured() as cost:
            folder = target.rebuild(self._weights_of) if rebuild else None
            if folder is None:
                for layer in target.layers():
                    self._weights_of(layer)
        self._peak = cost.peak_rss_bytes
        return folder

    def _weights_of(self, layer: ProtectedLayer) -> Tensor:
        """The withheld weights [H, P] as the attack has them, zero where it found none."""
        start = time.perf_counter()
        recovered = self._attack.recover(layer, self._settings)
        self._seconds += time.perf_counter() - start
        weights = self._truth.weights(self._true[layer.mlp.path])
        inputs = {
            "gate.weight": weights.gate,
            "gate.bias": weights.gate_bias,
            "up.weight": weights.up,
            "up.bias": weights.up_bias,
        }
        places = _places(layer, {name: tensor for name, tensor in inputs.items() if tensor is not None})
        self._score.add(recovered.weights, weights.down[:, places[: layer.protected]])
        if recovered.under_determined is not None:
            self._open.append(recovered.under_determined)
        if recovered.intervals_found is not None:
            self._found = (self._found or 0) + recovered.intervals_found
        self._layers += 1
        self._report(self._layers)
        return recovered.weights.nan_to_num(0.0)

    def result(self, rebuilt: Rebuilt | None) -> AttackResult:
        """What was found, once every layer was attacked."""
        more = f" (and in {len(self._open) - 1} other layers)" if len(self._open) > 1 else ""
        return AttackResult(
            attack=self._attack.name,
            source=self._attack.source,
            assumptions=self._attack.assumptions,
            budget=self._attack.budget(self._settings),
            **self._score.figures(),
            under_determined=self._open[0] + more if self._open else None,
            intervals_found=None if self._found is None else self._found / self._score.neurons,
            rebuilt=rebuilt,
            seconds=self._seconds,
            peak_rss_bytes=self._peak,
        )


def _places(layer: ProtectedLayer, inputs: dict[str, Tensor]) -> list[int]:
    """For each place of a layer the neuron of the original with the same input weights and biases."""
    ours = _rows([layer.tensor(name) for name in inputs])
    theirs = _rows(list(inputs.values())).to(ours.dtype)
    place = {_key(row): index for index, row in enumerate(theirs)}
    return [place[_key(row)] for row in ours]


def _rows(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)


def _key(row: Tensor) -> bytes:
    return bytes(row.contiguous().view(torch.uint8).numpy().tobytes())
