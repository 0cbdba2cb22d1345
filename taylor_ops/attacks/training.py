"""Train the protected weights of a whole model on a downstream text; all other weights stay as in the bundle.

These are the experiments of the paper on TaylorMLP (arXiv 2410.05331, defence against fine-tuning). An attacker who has
the bundle and uses no algebra puts random output weights into the original architecture, and fine-tunes them on a text
of their own. Two results are reported, because they differ: how near the weights come to the original's, and how much
of the loss on held-out text of the same kind is won back.
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
    """Weights under training.

    Attributes:
        leaves: The tensors that the optimizer moves.
        made: Makes the weights [H, P] from the present values of `leaves`.
    """

    leaves: list[Tensor]
    made: Callable[[], Tensor]


@dataclass(frozen=True)
class Training:
    """One way to train the protected weights of a whole model.

    Attributes:
        name: Its name in `audit.attacks`.
        source: Where it was published.
        assumptions: What the attacker sees.
        budget: What the attack may spend under these settings, in words.
        rate: The learning rate of Adam at the start.
        adjustable: Makes random weights [H, P] adjustable.
    """

    name: str
    source: str
    assumptions: str
    budget: Callable[[Audit], str]
    rate: float
    adjustable: Callable[[Tensor, Audit, torch.Generator], Adjustable]


@dataclass(frozen=True)
class Trained:
    """What a training found.

    Attributes:
        weights: Weights [H, P] float32 on the CPU, by the path of their MLP.
        task: What the training did to the loss.
    """

    weights: dict[str, Tensor]
    task: Task


def trained(
    training: Training, target: Target, original: Path, settings: Audit, conditions: Conditions, progress: Progress
) -> Trained:
    """Train random output weights for `settings.tuning_steps` steps.

    The original only gives the loss to compare with. Four of five sequences of the task are for training, the others
    are held out.

    Raises:
        BadInput: The task has too little text, or memory does not hold the model and what training adds to it.
    """
    learned, held_out = _split(original, conditions)
    _require_room(Original(original), conditions.device)
    device, generator = conditions.device, torch.Generator().manual_seed(_SEED)
    plain = load_original(original, "float32", device)
    goal = _mean_loss(plain, {}, held_out)
    del plain
    random: dict[str, Tensor] = {}
    unprotected: dict[str, Tensor] = {}
    for layer in target.layers():
        path, columns = layer.mlp.path, layer.unprotected
        random[path] = _start(layer, target.dense, generator)
        # A view would keep the terms of every layer in memory.
        unprotected[path] = columns.float().clone().to(device)
    student = load_original(target.rebuild(lambda layer: random[layer.mlp.path]), "float32", device)
    student.requires_grad_(False)
    parts = {path: training.adjustable(start.to(device), settings, generator) for path, start in random.items()}

    def weights() -> dict[str, Tensor]:
        return dict(_parameters(target.dense, unprotected, {path: part.made() for path, part in parts.items()}))

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
    """Random weights [H, P] with the standard deviation with which the architecture is initialised."""
    deviation = float(getattr(dense.config, "initializer_range", None) or _USUAL_DEVIATION)
    return deviation * torch.randn(len(layer.unprotected), layer.protected, generator=generator)


def _split(original: Path, conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Token sequences [n, 128] for training, and sequences to hold out."""
    if not conditions.task:
        raise BadInput("fine-tuning needs a text, and there is none", "name a text in `exactness.running_text`")
    cut = sequences(tuple(conditions.task), load_tokenizer(original), _TOKENS, _SEQUENCE)
    full = torch.tensor([sequence for sequence in cut if len(sequence) == _SEQUENCE])
    if len(full) < _HELD_OUT_EVERY:
        raise BadInput(
            f"fine-tuning needs a text of at least {_HELD_OUT_EVERY * _SEQUENCE} tokens; "
            f"`exactness.running_text` has {len(full) * _SEQUENCE}",
            "name a longer text there, or take the attack off `audit.attacks`",
        )
    held_out = torch.arange(len(full)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return full[~held_out], full[held_out]


def _require_room(truth: Original, device: torch.device) -> None:
    protected = sum(truth.down_values(mlp) for mlp in truth.mlps)
    # Random weights, their gradients and two moments come on top of the weights of the model.
    needed, room = truth.bytes(torch.float32) + 4 * torch.float32.itemsize * protected, room_for_weights(device)
    if needed > room:
        raise BadInput(
            f"fine-tuning needs {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB are available",
            "take the attack off `audit.attacks`, or run on a machine with more memory",
        )


def _parameters(
    dense: Original, unprotected: dict[str, Tensor], made: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Output weights of every MLP by their names in the dense model; unprotected columns follow the made ones."""
    for module, members in groupby(dense.mlps, key=lambda mlp: mlp.module):
        mlps = list(members)
        kind = mlps[0].kind
        weights = [torch.cat([made[mlp.path], unprotected[mlp.path]], dim=1) for mlp in mlps]
        if mlps[0].expert is not None:
            yield f"{module}.{kind.down}", torch.stack(weights)
        else:
            yield f"{module}.{kind.down}.weight", weights[0].T if kind.transposed else weights[0]


def _mean_loss(model: Any, weights: dict[str, Tensor], rows: Tensor) -> float:
    """Loss on sequences [n, L] of equal length, in nats a token."""
    with torch.no_grad():
        losses = [float(_loss(model, weights, batch)) * len(batch) for batch in torch.split(rows, _BATCH)]
    return sum(losses) / len(rows)


def _loss(model: Any, weights: dict[str, Tensor], rows: Tensor) -> Tensor:
    ids = rows.to(model.device)
    logits = functional_call(model, weights, kwargs={"input_ids": ids, "use_cache": False}).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
