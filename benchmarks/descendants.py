"""Descendants of a model that somebody took: rounded, pruned, noisy, merged and further trained models.

Unless a function says otherwise, it takes the tensors of a model by name and returns those of a descendant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_GROUP = 32


def _matrices(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    """A descendant whose matrices went through `change`. Vectors, which are the norms, stay as they are."""
    return lambda tensors: {name: change(one) if one.dim() == 2 else one for name, one in tensors.items()}


def rounded_to(bits: int) -> Callable[[Tensors], Tensors]:
    """Quantise as runtimes do, and back: symmetric rounding to nearest, with one scale for 32 weights of a row."""
    return _matrices(lambda weight: _rounded(weight, bits))


def _rounded(weight: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    groups = weight.float().reshape(-1, _GROUP if weight.shape[1] % _GROUP == 0 else weight.shape[1])
    step = groups.abs().amax(1, keepdim=True).clamp_min(1e-12) / top
    rounded: Tensor = (groups / step).round() * step
    return rounded.reshape(weight.shape)


def in_bfloat16(tensors: Tensors) -> Tensors:
    """All tensors in bfloat16."""
    return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}


def pruned(share: float) -> Callable[[Tensors], Tensors]:
    """The smallest weights of each matrix set to zero."""

    def prune(weight: Tensor) -> Tensor:
        size = weight.abs()
        limit = size.flatten().kthvalue(max(1, int(share * size.numel()))).values
        return torch.where(size > limit, weight, 0.0)

    return _matrices(prune)


def noisy(relative: float, seed: int = 0) -> Callable[[Tensors], Tensors]:
    """Each weight of a matrix times one plus Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)
    return _matrices(lambda weight: weight * (1 + relative * torch.randn(weight.shape, generator=generator)))


def merged(first: Tensors, second: Tensors) -> Tensors:
    """The mean of two models."""
    return {name: (tensor + second[name]) / 2 for name, tensor in first.items()}


def fine_tuned(model: Any, texts: Sequence[Tensor], steps: int, rate: float = 1e-5) -> None:
    """Train all weights of a model in place with AdamW, one text [1, T] a step."""
    _train(model, list(model.parameters()), texts, steps, rate)


def lora_tuned(model: Any, texts: Sequence[Tensor], steps: int, rank: int = 8, rate: float = 2e-4) -> None:
    """Train low-rank additions to every linear layer of the decoder (LoRA, arXiv 2106.09685), then merge them."""
    added: list[tuple[torch.nn.Linear, Tensor, Tensor]] = []
    hooks = []
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.Linear):
            down = torch.nn.Parameter(torch.randn(rank, module.in_features) / module.in_features**0.5)
            up = torch.nn.Parameter(torch.zeros(module.out_features, rank))
            added.append((module, down, up))
            hooks.append(
                module.register_forward_hook(lambda _m, given, said, a=down, b=up: said + 2 * (given[0] @ a.T) @ b.T)
            )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    _train(model, [part for _, *pair in added for part in pair], texts, steps, rate)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for module, first, second in added:
            module.weight.add_(2 * second @ first)


def _train(model: Any, parameters: Sequence[Any], texts: Sequence[Tensor], steps: int, rate: float) -> None:
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=rate, fused=True)
    model.train()
    for step in range(steps):
        ids = texts[step % len(texts)]
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
