"""Originals, and copies of them marked before any conversion: what descendants in tests are made from."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.evidence.key import Key
from taylor_ops.evidence.marking import Copy
from taylor_ops.evidence.pattern import code_of, layer_pattern, model_of, places
from taylor_ops.evidence.recipients import Recipient
from taylor_ops.evidence.trace import Traced, trace
from taylor_ops.files import link_or_copy
from taylor_ops.original import Original
from tests.taylor_ops.conftest import silent

KEY, OTHER_KEY = Key(b"a secret of the owner, 32 bytes."), Key(b"another secret of just as much !")
RECIPIENTS = [Recipient(f"recipient-{number}", "1.2.0") for number in range(50)]
WEIGHTS = "model.safetensors"


def copy_for(number: int, strength: float) -> Copy:
    """The copy of one of the recipients."""
    return Copy(KEY, RECIPIENTS[number].name, RECIPIENTS[number].version, strength)


def marked_original(original: Path, copy: Copy, folder: Path) -> Path:
    """A model whose output weights were marked before anything else is done with them."""
    source, tensors = Original(original), load_file(original / WEIGHTS)
    model = model_of(source.weights(min(source.mlps, key=lambda mlp: mlp.path)).gate)
    code = code_of(copy.key, model, copy.version, copy.recipient)
    for mlp in source.mlps:
        weights, name = source.weights(mlp), f"{mlp.module}.{mlp.kind.down}.weight"
        shape = (len(weights.down), len(weights.gate))
        signs = layer_pattern(copy.key, model, mlp.path, shape).of(code)[:, places(weights.gate)]
        tensors[name] = weights.down * (1 + copy.strength * signs.float())
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
