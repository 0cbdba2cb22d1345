"""Greedy continuations in padded batches, with the logits of every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taylor_ops.texts.prompts import Prompt

_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Continuation:
    """The continuation of one prompt by a model.

    Attributes:
        prompt: The prompt.
        tokens: [n] int64, on the CPU.
        logits: [n, V] float32 before any processor, on the CPU.
    """

    prompt: Prompt
    tokens: Tensor
    logits: Tensor


def batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[Prompt]]:
    """Put prompts of similar length together, at most `batch_size` and about 4096 padded tokens in each batch."""
    result: list[list[Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: len(prompt.tokens)):
        padded = len(prompt.tokens) * (len(result[-1]) + 1) if result else 0
        if not result or len(result[-1]) == batch_size or padded > _BATCH_TOKENS:
            result.append([])
        result[-1].append(prompt)
    return result


def continue_greedily(
    model: Any, prompts: Sequence[Prompt], new_tokens: int, batch_size: int, pad_token: int
) -> Iterator[Continuation]:
    """Greedy continuations of exactly `new_tokens` tokens, in the order of `batches(prompts, batch_size)`.

    The end-of-text token is suppressed, so that every prompt is compared over the same length.
    """
    for batch in batches(prompts, batch_size):
        ids, mask = padded_left(batch, pad_token, model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad_token,
                output_logits=True,
                return_dict_in_generate=True,
            )
        logits = torch.stack([step.float().cpu() for step in output.logits], dim=1)
        tokens = output.sequences[:, ids.shape[1] :].cpu()
        for row, prompt in enumerate(batch):
            yield Continuation(prompt, tokens[row], logits[row])


def padded_left(batch: Sequence[Prompt], pad_token: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [B, L] of a batch, padded on the left."""
    length = max(len(prompt.tokens) for prompt in batch)
    ids = torch.full((len(batch), length), pad_token)
    mask = torch.zeros((len(batch), length), dtype=torch.int64)
    for row, prompt in enumerate(batch):
        ids[row, length - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
        mask[row, length - len(prompt.tokens) :] = 1
    return ids.to(device), mask.to(device)
