"""The perplexity of two models on running text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from taylor_ops.exactness.record import Perplexity


def perplexities(
    name: str, texts: Sequence[tuple[int, ...]], models: tuple[Any, Any], done: Callable[[int], None]
) -> Perplexity:
    """The perplexities of original and bundle.

    Args:
        name: Name of the running text.
        texts: Its token sequences, at least two tokens each.
        models: Original and bundle.
        done: Receives 1 for each sequence that a model has read.
    """
    total = sum(len(text) - 1 for text in texts)
    found = []
    for model in models:
        losses = []
        for text in texts:
            losses.append(_loss(model, text))
            done(1)
        found.append(_perplexity(float(torch.stack(losses).sum()) / total))
    return Perplexity(name=name, tokens=total, original=found[0], bundle=found[1])


def _perplexity(loss: float) -> float:
    # A broken model may have a loss whose exponential is too large for a float.
    return math.exp(loss) if loss < 700 else math.inf


def _loss(model: Any, text: tuple[int, ...]) -> Tensor:
    """Summed negative log-likelihood in nats of all tokens of a text but the first."""
    ids = torch.tensor([text], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
