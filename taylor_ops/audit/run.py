"""Run one attack over a bundle, layer by layer, and score what it recovers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.attacks.record import Task
from taylor_ops.attacks.target import Target
from taylor_ops.attacks.training import Training, trained
from taylor_ops.audit.record import AttackResult, Rebuilt
from taylor_ops.config.audit import Audit
from taylor_ops.machine.usage import measured
from taylor_ops.model.original import MlpWeights, Original


class Run:
    """One attack at work: timed by itself and scored by the original on the way, one layer in memory at a time.

    One that trains has the whole model in memory first. report: receives how many layers are done.
    """

    def __init__(
        self,
        attack: Attack | Training,
        truth: Original,
        settings: Audit,
        conditions: Conditions,
        report: Callable[[int], None],
    ) -> None:
        self._attack, self._truth, self._settings = attack, truth, settings
        self._conditions, self._report = conditions, report
        self._true = {mlp.path: mlp for mlp in truth.mlps}
        self._score, self._seconds, self._peak, self._layers = Score(), 0.0, 0, 0
        self._open: list[str] = []
        self._intervals: tuple[int, int] | None = None
        self._task: Task | None = None

    def over(self, target: Target, rebuild: bool) -> Path | None:
        """Attack every layer; returns the folder of the rebuilt model, where one is wanted."""
        with measured() as cost:
            self._recover = self._ready(target)
            folder = target.rebuild(self._weights_of) if rebuild else None
            if folder is None:
                for layer in target.layers():
                    self._weights_of(layer)
        self._peak = cost.peak_rss_bytes
        return folder

    def _ready(self, target: Target) -> Callable[[ProtectedLayer], Recovered]:
        """What recovers a layer; of an attack on the whole model, after its training."""
        attack, settings = self._attack, self._settings
        if isinstance(attack, Attack):
            return lambda layer: attack.recover(layer, settings)
        layers = len(self._truth.mlps)
        start = time.perf_counter()
        found = trained(
            attack,
            target,
            self._truth.folder,
            settings,
            self._conditions,
            lambda done, total: self._report(layers * done // total),
        )
        self._seconds += time.perf_counter() - start
        self._task = found.task
        return lambda layer: Recovered(found.weights[layer.mlp.path])

    def _weights_of(self, layer: ProtectedLayer) -> Tensor:
        """The withheld weights [H, P] as the attack has them, zero where it found none."""
        start = time.perf_counter()
        recovered = self._recover(layer)
        self._seconds += time.perf_counter() - start
        weights = self._truth.weights(self._true[layer.mlp.path])
        self._score.add(recovered.weights, withheld(layer, weights))
        if recovered.under_determined is not None:
            self._open.append(recovered.under_determined)
        if recovered.intervals is not None:
            before = self._intervals or (0, 0)
            self._intervals = before[0] + recovered.intervals[0], before[1] + recovered.intervals[1]
        self._layers += 1
        if self._task is None:
            self._report(self._layers)
        return recovered.weights.nan_to_num(0.0)

    def result(self, rebuilt: Rebuilt | None) -> AttackResult:
        """What was found, once every layer was attacked."""
        found, asked = self._intervals or (0, 0)
        more = f" (and in {len(self._open) - 1} other layers)" if len(self._open) > 1 else ""
        return AttackResult(
            attack=self._attack.name,
            source=self._attack.source,
            assumptions=self._attack.assumptions,
            budget=self._attack.budget(self._settings),
            **self._score.figures(),
            under_determined=self._open[0] + more if self._open else None,
            intervals_found=found / asked if asked else None,
            intervals_asked=None if self._intervals is None else asked / self._score.neurons,
            task=self._task,
            rebuilt=rebuilt,
            seconds=self._seconds,
            peak_rss_bytes=self._peak,
        )


def withheld(layer: ProtectedLayer, weights: MlpWeights) -> Tensor:
    """The true output weights [H, P] of the protected neurons, in the order of the bundle."""
    inputs = {
        "gate.weight": weights.gate,
        "gate.bias": weights.gate_bias,
        "up.weight": weights.up,
        "up.bias": weights.up_bias,
    }
    places = _places(layer, {name: tensor for name, tensor in inputs.items() if tensor is not None})
    return weights.down[:, places[: layer.protected]]


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


class Score:
    """Collects, layer by layer, how near recovered columns [H, F] are to the true ones."""

    def __init__(self) -> None:
        self._within = [0, 0]
        self._weights = 0
        self._cosines: list[Tensor] = []

    def add(self, recovered: Tensor, true: Tensor) -> None:
        """Score one layer; columns of both in the same order, NaN in those that were not found."""
        recovered, true = recovered.float(), true.float()
        scale = true.square().mean(0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        error = (recovered - true).abs() / scale
        self._within[0] += int((error <= 1e-2).sum())
        self._within[1] += int((error <= 1e-3).sum())
        self._weights += true.numel()
        # A column that was not found, or holds what no number can be made of, is like no other.
        self._cosines.append(torch.nn.functional.cosine_similarity(recovered, true, dim=0).nan_to_num(0.0))

    def figures(self) -> dict[str, Any]:
        """The score of everything added, by the names of the fields of `AttackResult`."""
        cosines = torch.cat(self._cosines)
        return {
            "weights": self._weights,
            "recovered_1pct": self._within[0] / self._weights,
            "recovered_01pct": self._within[1] / self._weights,
            "cosine_median": float(cosines.median()),
            "cosine_worst": float(cosines.min()),
        }

    @property
    def neurons(self) -> int:
        """How many columns were added."""
        return sum(map(len, self._cosines))
