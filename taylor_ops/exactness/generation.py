"""Greedy continuations in padded batches, and what a model would say at each step of a text that is given.

The most probable token of each step is taken, whatever the generation config of a model says about penalties or
sampling. The end-of-text tokens are suppressed, so that every prompt is compared over the same length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from taylor_ops.exactness.greedy import GREEDY
from taylor_ops.texts.prompts import Prompt

_BATCH_TOKENS = 4096
_MUCH_LONGER = 2


@dataclass(frozen=True)
class Continuation:
    """What a model says after a prompt.

    Attributes:
        prompt: The prompt.
        tokens: [n] int64, the most probable token of each step.
        logits: [n, V] in the dtype of the model, with nothing suppressed.
    """

    prompt: Prompt
    tokens: Tensor
    logits: Tensor


def batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[Prompt]]:
    """Put prompts of similar length together: at most `batch_size` and about 4096 padded tokens in each batch.

    A prompt that is more than twice as long as another one is in another batch, as most of what the short one costs
    there would be padding.
    """
    result: list[list[Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: len(prompt.tokens)):
        length = len(prompt.tokens)
        if (
            not result
            or len(result[-1]) == batch_size
            or length * (len(result[-1]) + 1) > _BATCH_TOKENS
            or length > _MUCH_LONGER * len(result[-1][0].tokens)
        ):
            result.append([])
        result[-1].append(prompt)
    return result


def padding_token(tokenizer: Any, model: Any) -> int:
    """A token to pad with, which no token of a text sees: that of the tokenizer, or 0 if the embedding lacks it."""
    token, rows = tokenizer.pad_token_id, model.get_input_embeddings().weight.shape[0]
    return int(token) if token is not None and 0 <= token < rows else 0


def continue_greedily(
    model: Any, prompts: Sequence[Prompt], new_tokens: int, batch_size: int, pad_token: int
) -> Iterator[Continuation]:
    """Greedy continuations of exactly `new_tokens` tokens, in the order of `batches(prompts, batch_size)`.

    The model decodes step by step, as for any of its users.
    """
    for batch in batches(prompts, batch_size):
        tokens, logits, _ = _decoded(model, batch, new_tokens, pad_token)
        for row, prompt in enumerate(batch):
            yield Continuation(prompt, tokens[row], logits[row])


def decoded_along(model: Any, text: Continuation, steps: int, pad_token: int) -> Continuation:
    """What `model` says after a prompt: it decodes `steps` tokens step by step, then reads the rest of this text.

    From a step on at which it decoded another token than the text has, its logits are of no use.
    """
    steps = min(steps, len(text.tokens))
    tokens, logits, cache = _decoded(model, [text.prompt], steps, pad_token)
    if steps == len(text.tokens):
        return Continuation(text.prompt, tokens[0], logits[0])
    with torch.inference_mode():
        # The last token that was decoded has not been read yet.
        state = model(input_ids=text.tokens[None, steps - 1 : -1], past_key_values=cache, use_cache=True)
    rest = state.logits[0]
    return Continuation(
        text.prompt, torch.cat([tokens[0], _most_probable(model, rest)]), torch.cat([logits[0].to(rest.dtype), rest])
    )


def _decoded(model: Any, prompts: Sequence[Prompt], new_tokens: int, pad_token: int) -> tuple[Tensor, Tensor, Any]:
    """The tokens [B, n] that `model` decodes greedily after each prompt, their logits [B, n, V], and its cache."""
    ids, mask = _padded([prompt.tokens for prompt in prompts], pad_token, model.device, left=True)
    with torch.inference_mode(), _greedy(model):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=pad_token,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return output.sequences[:, ids.shape[1] :], torch.stack(output.logits, dim=1), output.past_key_values


def continued_along(model: Any, texts: Sequence[Continuation], pad_token: int) -> list[Continuation]:
    """What `model` says at each step of these texts, from one forward pass over all of them (teacher forcing).

    Args:
        model: The model.
        texts: Prompts and the tokens that follow them. All have the same number of new tokens.
        pad_token: Token of the padding, which is on the right, where no token of a text sees it.
    """
    lengths = [len(text.prompt.tokens) for text in texts]
    read = [(*text.prompt.tokens, *text.tokens[:-1].tolist()) for text in texts]
    ids, mask = _padded(read, pad_token, model.device, left=False)
    first = min(lengths) - 1
    with torch.inference_mode():
        state = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first)
        result = []
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            start = length - 1 - first
            logits = state.logits[row, start : start + len(text.tokens)]
            result.append(Continuation(text.prompt, _most_probable(model, logits), logits))
    return result


def _most_probable(model: Any, logits: Tensor) -> Tensor:
    """The most probable token [n] of each step, of those that do not end a text."""
    ends = model.generation_config.eos_token_id
    suppressed = torch.tensor([ends] if isinstance(ends, int) else ends or [], dtype=torch.int64, device=logits.device)
    # A generation config may name tokens that the model does not have.
    suppressed = suppressed[suppressed < logits.shape[-1]]
    return logits.index_fill(-1, suppressed, -torch.inf).argmax(-1)


@contextmanager
def _greedy(model: Any) -> Iterator[None]:
    """While open, `model` generates greedily, by none of the settings that its own generation config may have."""
    usual = model.generation_config
    model.generation_config = GenerationConfig(**GREEDY, eos_token_id=usual.eos_token_id)
    try:
        yield
    finally:
        model.generation_config = usual


def _padded(texts: Sequence[Sequence[int]], pad_token: int, device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [B, L] of a batch, padded on the left or on the right."""
    length = max(map(len, texts))
    ids = torch.full((len(texts), length), pad_token)
    mask = torch.zeros((len(texts), length), dtype=torch.int64)
    for row, text in enumerate(texts):
        place = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, place] = torch.tensor(text)
        mask[row, place] = 1
    return ids.to(device), mask.to(device)
