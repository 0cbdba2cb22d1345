"""Train the withheld weights of a whole model on a downstream text, everything else as the bundle has it.

The experiments of the paper on TaylorMLP (arXiv 2410.05331, defence against fine-tuning): one who has the bundle and no
algebra puts random output weights into the original architecture and fine-tunes them on a text of their own. What that
gives is reported in two ways, because they differ: how near the weights come to the original's, and how much of the
loss on text of the same kind, held out, is won back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.record import Task
from taylor_ops.attacks.target import Target
from taylor_ops.config.audit import Audit
from taylor_ops.errors import BadInput
from taylor_ops.machine.devices import room_for_weights
from taylor_ops.model.loading import load_original, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.texts.prompts import sequences

_SEQUENCE = 128
_BATCH = 2
STEP_TOKENS = _BATCH * _SEQUENCE
"""Tokens that one training step sees."""
_TOKENS = 20_480
_HELD_OUT_EVERY = 5
_SEED = 2
_USUAL_DEVIATION = 0.02
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Adjustable:
    """Weights under training. leaves: what the optimizer moves. made: the weights [H, P] that these stand for now."""

    leaves: list[Tensor]
    made: Callable[[], Tensor]


@dataclass(frozen=True)
class Training:
    """One way to train the withheld weights. adjustable: makes random weights [H, P] adjustable; rate: of Adam."""

    name: str
    source: str
    assumptions: str
    budget: Callable[[Audit], str]
    rate: float
    adjustable: Callable[[Tensor, Audit, torch.Generator], Adjustable]


@dataclass(frozen=True)
class Trained:
    """Weights [H, P] float32 on the CPU by the path of their MLP, and what they did to the loss."""

    weights: dict[str, Tensor]
    task: Task


def trained(
    training: Training, target: Target, original: Path, settings: Audit, conditions: Conditions, progress: Progress
) -> Trained:
    """Train random output weights for `settings.tuning_steps` steps; the original only tells the loss to compare with.

    Four of five sequences of the task are trained on, the others are held out. Raises `BadInput` where the task has too
    little text, or memory does not hold the model and what training adds to it.
    """
    learned, held_out = _split(original, conditions)
    _require_room(Original(original), conditions.device)
    device, generator = conditions.device, torch.Generator().manual_seed(_SEED)
    plain = load_original(original, "float32", device)
    goal = _mean_loss(plain, {}, held_out)
    del plain
    random: dict[str, Tensor] = {}
    clear: dict[str, Tensor] = {}
    for layer in target.layers():
        path, columns = layer.mlp.path, layer.in_clear
        random[path] = _start(layer, target.dense, generator)
        # A view would keep the terms of every layer in memory.
        clear[path] = columns.float().clone().to(device)
    student = load_original(target.rebuild(lambda layer: random[layer.mlp.path]), "float32", device)
    student.requires_grad_(False)
    parts = {path: training.adjustable(start.to(device), settings, generator) for path, start in random.items()}

    def weights() -> dict[str, Tensor]:
        return dict(_parameters(target.dense, clear, {path: part.made() for path, part in parts.items()}))

    with torch.no_grad():
        before = _mean_loss(student, weights(), held_out)
    optimizer = torch.optim.Adam([leaf for part in parts.values() for leaf in part.leaves], lr=training.rate)
    for step in range(settings.tuning_steps):
        rows = torch.randint(len(learned), (_BATCH,), generator=generator)
        optimizer.zero_grad()
        _loss(student, weights(), learned[rows]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([leaf for part in parts.values() for leaf in part.leaves], _LARGEST_GRADIENT)
        rate = training.rate * (1 + math.cos(math.pi * step / settings.tuning_steps)) / 2
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        progress(step + 1, settings.tuning_steps)
    with torch.no_grad():
        after = _mean_loss(student, weights(), held_out)
        found = {path: part.made().detach().cpu() for path, part in parts.items()}
    return Trained(
        weights=found,
        task=Task(
            tokens_trained=learned.numel(),
            tokens_held_out=held_out.numel(),
            loss_before=before,
            loss_after=after,
            loss_original=goal,
        ),
    )


def _start(layer: ProtectedLayer, dense: Original, generator: torch.Generator) -> Tensor:
    """Random weights [H, P], as wide as the architecture is initialised."""
    deviation = float(getattr(dense.config, "initializer_range", None) or _USUAL_DEVIATION)
    return deviation * torch.randn(len(layer.in_clear), layer.protected, generator=generator)


def _split(original: Path, conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Token sequences [n, 128] to train on and to hold out."""
    if not conditions.task:
        raise BadInput("fine-tuning needs a text, and there is none", "name one in `exactness.running_text`")
    cut = sequences(tuple(conditions.task), load_tokenizer(original), _TOKENS, _SEQUENCE)
    whole = torch.tensor([sequence for sequence in cut if len(sequence) == _SEQUENCE])
    if len(whole) < _HELD_OUT_EVERY:
        raise BadInput(
            f"fine-tuning needs a text of at least {_HELD_OUT_EVERY * _SEQUENCE} tokens; "
            f"`exactness.running_text` has {len(whole) * _SEQUENCE}",
            "name a longer text there, or take the attack off `audit.attacks`",
        )
    kept = torch.arange(len(whole)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return whole[~kept], whole[kept]


def _require_room(truth: Original, device: torch.device) -> None:
    withheld = sum(truth.down_values(mlp) for mlp in truth.mlps)
    # Beside the weights: random ones, their gradients and two moments.
    needed, room = truth.bytes(torch.float32) + 4 * torch.float32.itemsize * withheld, room_for_weights(device)
    if needed > room:
        raise BadInput(
            f"fine-tuning needs {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB can be had",
            "take the attack off `audit.attacks`, or run where there is more memory",
        )


def _parameters(dense: Original, clear: dict[str, Tensor], made: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Output weights of every MLP as the dense model has them, by name, with the columns in clear as they are."""
    for module, members in groupby(dense.mlps, key=lambda mlp: mlp.module):
        mlps = list(members)
        kind = mlps[0].kind
        whole = [torch.cat([made[mlp.path], clear[mlp.path]], dim=1) for mlp in mlps]
        if mlps[0].expert is not None:
            yield f"{module}.{kind.down}", torch.stack(whole)
        else:
            yield f"{module}.{kind.down}.weight", whole[0].T if kind.transposed else whole[0]


def _mean_loss(model: Any, weights: dict[str, Tensor], rows: Tensor) -> float:
    """Loss on sequences [n, L] of equal length, in nats a token."""
    with torch.no_grad():
        losses = [float(_loss(model, weights, batch)) * len(batch) for batch in torch.split(rows, _BATCH)]
    return sum(losses) / len(rows)


def _loss(model: Any, weights: dict[str, Tensor], rows: Tensor) -> Tensor:
    ids = rows.to(model.device)
    logits = functional_call(model, weights, kwargs={"input_ids": ids, "use_cache": False}).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
