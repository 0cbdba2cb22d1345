"""Write Llamas with random weights of any size, layer by layer, so that none has to fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig

from taylor_ops.model.shape import expected_shapes
from taylor_ops.model.shards import write_shards
from tests.support.tiny_models import SIZES, tokenizer

_HEAD = 64


@dataclass(frozen=True)
class Sizes:
    """Sizes of a Llama, by their names in its config."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int = SIZES["vocab_size"]

    @property
    def layer_values(self) -> int:
        """Number of weights of one decoder layer, without norms."""
        return 4 * self.hidden_size**2 + 3 * self.hidden_size * self.intermediate_size


def write_llama(folder: Path, sizes: Sizes, dtype: torch.dtype = torch.float32) -> Path:
    """Write a Llama with its tokenizer, one token a byte, into `folder`; one shard a layer.

    Pre-activations spread over several units, as in a trained model.
    """
    heads = max(1, sizes.hidden_size // _HEAD)
    shared = {name: SIZES[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")}
    config = LlamaConfig(
        **shared | asdict(sizes),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        architectures=["LlamaForCausalLM"],
        dtype=dtype,
    )
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    write_shards(folder, _tensors(config, dtype), sizes.layer_values * dtype.itemsize)
    return folder


def _tensors(config: LlamaConfig, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for name, shape in expected_shapes(config).items():
        if len(shape) == 1:
            yield name, torch.ones(shape, dtype=dtype)
        else:
            scale = 1.0 if "embed" in name else 1.5 / shape[-1] ** 0.5
            yield name, (torch.randn(shape, generator=generator) * scale).to(dtype)
