"""Originals, and copies of them marked before any conversion: what descendants in tests are made from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.evidence.key import Key
from taylor_ops.evidence.marking import Copy
from taylor_ops.evidence.pattern import code_of, layer_pattern, name_of, neurons_in_order
from taylor_ops.evidence.recipients import Recipient
from taylor_ops.evidence.record import Traced
from taylor_ops.evidence.trace import trace
from taylor_ops.model.original import Original
from taylor_ops.storage.files import link_or_copy
from tests.taylor_ops.conftest import silent

KEY, OTHER_KEY = Key(b"a secret of the owner, 32 bytes."), Key(b"another secret of just as much !")
RECIPIENTS = [Recipient(f"recipient-{number}", "1.2.0") for number in range(50)]
WEIGHTS = "model.safetensors"
LARGER = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2}
"""Sizes with enough output weights: one in 256 is marked."""


def copy_for(number: int, strength: float) -> Copy:
    """The copy of one of the recipients."""
    return Copy(KEY, RECIPIENTS[number].name, RECIPIENTS[number].version, strength)


def marked_original(original: Path, copy: Copy, folder: Path) -> Path:
    """A model whose output weights were marked before anything else is done with them."""
    source, tensors = Original(original), load_file(original / WEIGHTS)
    code = code_of(copy.key, name_of(source), copy.version, copy.recipient)
    for mlp in source.mlps:
        weights = source.weights(mlp)
        height, width = weights.down.shape
        pattern = layer_pattern(copy.key, name_of(source), mlp.path, (height, width))
        neuron = neurons_in_order(weights.gate)[torch.from_numpy(pattern.neuron)]
        factor = torch.ones(height, width)
        factor[torch.from_numpy(pattern.row), neuron] += copy.strength * torch.from_numpy(pattern.of(code)).float()
        name = f"{mlp.module}.{mlp.kind.down}.weight"
        tensors[name] = tensors[name] * factor
    return with_tensors(original, tensors, folder)


def with_tensors(original: Path, tensors: dict[str, Tensor], folder: Path) -> Path:
    """A model folder like another, with these tensors."""
    folder.mkdir(exist_ok=True)
    for path in original.iterdir():
        if path.suffix != ".safetensors" and not (folder / path.name).exists():
            link_or_copy(path, folder / path.name)
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def traced(weights: Path, original: Path, key: Key = KEY, recipients: list[Recipient] = RECIPIENTS) -> Traced:
    """Trace among the recipients."""
    return trace(weights, original, key, recipients, silent)


def named(weights: Path, original: Path, key: Key = KEY) -> set[str]:
    """The names that a trace gives."""
    return {one.recipient for one in traced(weights, original, key).named}
