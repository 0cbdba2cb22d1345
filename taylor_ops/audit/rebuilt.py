"""Rebuild a model from what an attack found: whether it gives the tokens of the original, and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.target import Target
from taylor_ops.audit.record import Rebuilt
from taylor_ops.audit.timing import timed
from taylor_ops.config.audit import Audit
from taylor_ops.config.texts import TextSource
from taylor_ops.exactness.generation import (
    Continuation,
    batches,
    continue_greedily,
    continued_along,
    padding_token,
)
from taylor_ops.exactness.tally import Tally
from taylor_ops.model.loading import load_both, load_tokenizer
from taylor_ops.model.shards import save_tensors
from taylor_ops.progress import Progress, part_of
from taylor_ops.storage.files import disk_errors_explained, scratch_beside
from taylor_ops.texts.prompts import Prompt, prompts

_BATCH_SIZE = 12
_WEIGHTS = "weights"


class Found:
    """What an attack found of each layer. It is kept in files, as memory need not hold all layers.

    Args:
        folder: Folder of the files, which is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    def add(self, layer: ProtectedLayer, weights: Tensor) -> None:
        """Keep the weights [H, P] of a layer, in the dtype of the bundle, with zeros for those that are NaN."""
        kept = weights.nan_to_num(0.0).to("cpu", layer.unprotected.dtype).contiguous()
        with disk_errors_explained(self._folder):
            save_tensors({_WEIGHTS: kept}, self._file(layer))

    def weights(self, layer: ProtectedLayer) -> Tensor:
        """The weights [H, P] of a layer."""
        weights: Tensor = load_file(self._file(layer))[_WEIGHTS]
        return weights

    def _file(self, layer: ProtectedLayer) -> Path:
        return self._folder / f"{layer.mlp.path}.safetensors"


def rebuilt_from(
    found: Found, bundle: Path, original: Path, settings: Audit, conditions: Conditions, progress: Progress
) -> Rebuilt:
    """Put what an attack found back into the original architecture, and measure the model that this gives."""
    with scratch_beside(conditions.work) as scratch:
        target, done = Target(bundle, Path(scratch)), 0
        layers = len(target.dense.mlps)
        writing, comparing, timing = (part_of(progress, 100 * part, 100, 300) for part in range(3))

        def weights_of(layer: ProtectedLayer) -> Tensor:
            nonlocal done
            done += 1
            writing(done, layers)
            return found.weights(layer)

        folder = target.rebuild(weights_of)
        return _measured_against(original, folder, target.dtype, settings, conditions, comparing, timing)


def held_out(original: Path, sources: Sequence[TextSource], most: int) -> list[Prompt]:
    """At most `most` prompts of the held-out sets of a release, the first ones, tokenised as the original does it."""
    tokenizer = load_tokenizer(original)
    found: list[Prompt] = []
    for source in sources:
        found += prompts(source, tokenizer)[: most - len(found)]
    return found


def _measured_against(
    original: Path,
    rebuilt: Path,
    dtype: str,
    settings: Audit,
    conditions: Conditions,
    comparing: Progress,
    timing: Progress,
) -> Rebuilt:
    """Compare the tokens of both models on held-out prompts, and time the models in turn.

    Weights that do not fit in memory are offloaded to the folder `rebuilt`, which is temporary.
    """
    compared = held_out(original, conditions.sources, settings.prompts)
    first, second = load_both(original, rebuilt, dtype, conditions.device, rebuilt / "offloaded")
    pad_token = padding_token(load_tokenizer(original), first)
    tally, rounds = Tally(), batches(compared, _BATCH_SIZE)
    for number, batch in enumerate(rounds, 1):
        texts = _continued(first, batch, settings.new_tokens, pad_token, conditions.continuations)
        tally.add_all(zip(texts, continued_along(second, texts, pad_token), strict=True))
        comparing(number, len(rounds))
    found = tally.comparison(0.0)
    return Rebuilt(
        prompts=found.prompts,
        prompts_equal=found.prompts_equal,
        tokens_compared=found.tokens_compared,
        kl_mean=found.kl_mean,
        kl_max=found.kl_max,
        top1_agreement=found.top1_agreement,
        residual=timed(first, second, conditions, timing),
    )


def _continued(
    original: Any,
    batch: Sequence[Prompt],
    new_tokens: int,
    pad_token: int,
    known: Mapping[tuple[int, ...], tuple[int, ...]],
) -> list[Continuation]:
    """The original's greedy continuations. It decodes those that are not `known` for as many tokens."""
    nothing, device = torch.empty(0), original.device
    given = [
        Continuation(prompt, torch.tensor(known[prompt.tokens][:new_tokens], device=device), nothing)
        for prompt in batch
        if len(known.get(prompt.tokens, ())) >= new_tokens
    ]
    others = [prompt for prompt in batch if len(known.get(prompt.tokens, ())) < new_tokens]
    read = continued_along(original, given, pad_token) if given else []
    decoded = continue_greedily(original, others, new_tokens, _BATCH_SIZE, pad_token) if others else ()
    known_ones = [Continuation(text.prompt, text.tokens, now.logits) for text, now in zip(given, read, strict=True)]
    return [*known_ones, *decoded]
