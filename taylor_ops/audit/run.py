"""Run attacks over a bundle, layer by layer, and score what they recover."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.attacks.record import Task
from taylor_ops.attacks.target import Target
from taylor_ops.attacks.training import Trained, Training
from taylor_ops.audit.record import AttackResult, Rebuilt
from taylor_ops.config.audit import Audit
from taylor_ops.errors import BadInput
from taylor_ops.machine.usage import Usage, measured
from taylor_ops.model.original import MlpWeights, Original

_SEED = 0


class Run:
    """One attack at work. It is timed without scoring, and its score grows layer by layer.

    Args:
        attack: The attack to run.
        settings: Settings of the audit.
        trained: What an attack that trains has found of the whole model.
        cost: What this training took.
    """

    def __init__(
        self, attack: Attack | Training, settings: Audit, trained: Trained | None = None, cost: Usage | None = None
    ) -> None:
        self._attack, self._settings, self._trained = attack, settings, trained
        self._score, self._cost = Score(), cost or Usage()
        self._under_determined: list[str] = []
        self._intervals: tuple[int, int] | None = None

    def on(self, layer: ProtectedLayer, true: Tensor) -> Tensor:
        """Attack a layer, and score that by its `true` weights [H, P]. Returns what was recovered."""
        with measured() as cost:
            start = time.perf_counter()
            recovered = self._recovered(layer)
            if layer.device.type == "cuda":
                torch.cuda.synchronize(layer.device)
            self._cost.seconds += time.perf_counter() - start
        self._cost.peak_rss_bytes = max(self._cost.peak_rss_bytes, cost.peak_rss_bytes)
        self._score.add(recovered.weights, true)
        if recovered.under_determined is not None:
            self._under_determined.append(recovered.under_determined)
        if recovered.intervals is not None:
            before = self._intervals or (0, 0)
            self._intervals = before[0] + recovered.intervals[0], before[1] + recovered.intervals[1]
        return recovered.weights

    def _recovered(self, layer: ProtectedLayer) -> Recovered:
        if self._trained is not None:
            return Recovered(self._trained.weights[layer.mlp.path].to(layer.device))
        assert isinstance(self._attack, Attack)  # a training comes with what it has found
        return self._attack.recover(layer, self._settings)

    def result(self, rebuilt: Rebuilt | None) -> AttackResult:
        """The result, once every layer was attacked."""
        found, findable = self._intervals or (0, 0)
        reasons = self._under_determined
        others = len(reasons) - 1
        more = f" (and in {others} other layer{'s' if others > 1 else ''})" if others > 0 else ""
        task: Task | None = None if self._trained is None else self._trained.task
        return AttackResult(
            attack=self._attack.name,
            source=self._attack.source,
            assumptions=self._attack.assumptions,
            budget=self._attack.budget(self._settings),
            **self._score.figures(),
            under_determined=reasons[0] + more if reasons else None,
            intervals_found=found / findable if findable else None,
            intervals_asked=None if self._intervals is None else findable / self._score.neurons,
            task=task,
            rebuilt=rebuilt,
            seconds=self._cost.seconds,
            peak_rss_bytes=self._cost.peak_rss_bytes,
        )


def attack_layers(
    runs: Mapping[str, Run], target: Target, truth: Original, found: Callable[[str, ProtectedLayer, Tensor], None]
) -> None:
    """Run every attack on every layer. A layer and its true weights are read once for all attacks.

    One layer is in memory at a time. Raises `BadInput` if the bundle was made of another original.

    Args:
        runs: The attacks by name.
        target: The bundle.
        truth: The original, which scores.
        found: Receives the name of each attack, each layer, and what the attack recovers of it: [H, P], with NaN for
            weights that it did not find.
    """
    true = {mlp.path: mlp for mlp in truth.mlps}
    for layer in target.layers():
        if layer.mlp.path not in true:
            raise _of_another(layer)
        weights = protected_weights(layer, truth.weights(true[layer.mlp.path]))
        for name, run in runs.items():
            found(name, layer, run.on(layer, weights))


def protected_weights(layer: ProtectedLayer, weights: MlpWeights) -> Tensor:
    """The true output weights [H, P] of the protected neurons, in the order of the bundle, on the device of the layer.

    Raises `BadInput` if the bundle was not made of these weights.
    """
    inputs = {
        "gate.weight": weights.gate,
        "gate.bias": weights.gate_bias,
        "up.weight": weights.up,
        "up.bias": weights.up_bias,
    }
    present = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    if not all(map(layer.has, present)):
        raise _of_another(layer)
    places = _places(layer, present)
    return weights.down.to(layer.device)[:, places[: layer.protected]]


def _places(layer: ProtectedLayer, inputs: dict[str, Tensor]) -> Tensor:
    """For each place [F] of a layer, the neuron of the original with the same input weights and biases."""
    released = _rows([layer.tensor(name) for name in inputs])
    original = _rows([tensor.to(layer.device) for tensor in inputs.values()]).to(released.dtype)
    ours, theirs = _hashes(released), _hashes(original)
    in_order, neurons = theirs.sort()
    places = neurons[torch.searchsorted(in_order, ours).clamp_max(len(neurons) - 1)]
    if not torch.equal(_words(original)[places], _words(released)):
        raise _of_another(layer)
    return places


def _of_another(layer: ProtectedLayer) -> BadInput:
    return BadInput(
        f"{layer.mlp.path} of the original does not have the neurons that the bundle has there",
        "give the original that the bundle was made of",
    )


def _rows(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)


def _words(rows: Tensor) -> Tensor:
    """The bits of each value, as integers of its size: a NaN equals itself, and 0 is not -0."""
    return rows.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.itemsize])


def _hashes(rows: Tensor) -> Tensor:
    """A hash [F] int64 of the bits of each row, by random odd factors modulo 2^64."""
    generator = torch.Generator().manual_seed(_SEED)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) * 2 + 1
    return (_words(rows) * factors.to(rows.device)).sum(1)


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
        near, nearer = torch.stack([(error <= 1e-2).sum(), (error <= 1e-3).sum()]).tolist()
        self._within = [self._within[0] + near, self._within[1] + nearer]
        self._weights += true.numel()
        # The cosine of a column with NaN or infinite values would be NaN: such a column is not recovered.
        self._cosines.append(torch.nn.functional.cosine_similarity(recovered, true, dim=0).nan_to_num(0.0).cpu())

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
