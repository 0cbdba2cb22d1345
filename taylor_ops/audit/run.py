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
    """One attack at work. It is timed without scoring, and the original scores each layer on the way.

    One layer is in memory at a time. An attack that trains has the whole model in memory before that.

    Args:
        attack: The attack to run.
        truth: The original.
        settings: Settings of the audit.
        conditions: What an attack that trains needs besides.
        report: Receives how many layers are done.
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
        self._under_determined: list[str] = []
        self._intervals: tuple[int, int] | None = None
        self._task: Task | None = None

    def over(self, target: Target, rebuild: bool) -> Path | None:
        """Attack every layer; returns the folder of the rebuilt model if `rebuild` is set."""
        with measured() as cost:
            self._recover = self._ready(target)
            folder = target.rebuild(self._weights_of) if rebuild else None
            if folder is None:
                for layer in target.layers():
                    self._weights_of(layer)
        self._peak = cost.peak_rss_bytes
        return folder

    def _ready(self, target: Target) -> Callable[[ProtectedLayer], Recovered]:
        """The function that recovers a layer. An attack on the whole model is trained first."""
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
        """The protected weights [H, P] as the attack recovers them, with zeros for those it did not find."""
        start = time.perf_counter()
        recovered = self._recover(layer)
        self._seconds += time.perf_counter() - start
        weights = self._truth.weights(self._true[layer.mlp.path])
        self._score.add(recovered.weights, protected_weights(layer, weights))
        if recovered.under_determined is not None:
            self._under_determined.append(recovered.under_determined)
        if recovered.intervals is not None:
            before = self._intervals or (0, 0)
            self._intervals = before[0] + recovered.intervals[0], before[1] + recovered.intervals[1]
        self._layers += 1
        if self._task is None:
            self._report(self._layers)
        return recovered.weights.nan_to_num(0.0)

    def result(self, rebuilt: Rebuilt | None) -> AttackResult:
        """The result, once every layer was attacked."""
        found, findable = self._intervals or (0, 0)
        reasons = self._under_determined
        others = len(reasons) - 1
        more = f" (and in {others} other layer{'s' if others > 1 else ''})" if others > 0 else ""
        return AttackResult(
            attack=self._attack.name,
            source=self._attack.source,
            assumptions=self._attack.assumptions,
            budget=self._attack.budget(self._settings),
            **self._score.figures(),
            under_determined=reasons[0] + more if reasons else None,
            intervals_found=found / findable if findable else None,
            intervals_asked=None if self._intervals is None else findable / self._score.neurons,
            task=self._task,
            rebuilt=rebuilt,
            seconds=self._seconds,
            peak_rss_bytes=self._peak,
        )


def protected_weights(layer: ProtectedLayer, weights: MlpWeights) -> Tensor:
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
    """For each place of a layer, the neuron of the original with the same input weights and biases."""
    released = _rows([layer.tensor(name) for name in inputs])
    original = _rows(list(inputs.values())).to(released.dtype)
    place = {_key(row): index for index, row in enumerate(original)}
    return [place[_key(row)] for row in released]


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
        """Score one layer. Both have their columns in the same order; NaN marks those that were not found."""
        recovered, true = recovered.float(), true.float()
        scale = true.square().mean(0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        error = (recovered - true).abs() / scale
        self._within[0] += int((error <= 1e-2).sum())
        self._within[1] += int((error <= 1e-3).sum())
        self._weights += true.numel()
        # The cosine of a column with NaN or infinite values would be NaN: such a column is not recovered.
        self._cosines.append(torch.nn.functional.cosine_similarity(recovered, true, dim=0).nan_to_num(0.0))

    def figures(self) -> dict[str, Any]:
        """The score of all layers, by the field names of `AttackResult`."""
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
        """How many columns were scored."""
        return sum(map(len, self._cosines))
