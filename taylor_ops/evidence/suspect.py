"""The weights of a suspect: a bundle, a dense model, or any safetensors file with some of its output weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from taylor_ops.conversion.modeling_files import is_bundle
from taylor_ops.evidence.alignment import Aligned, align
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.original import Original
from taylor_ops.storage.files import read_json


class Piece(NamedTuple):
    """Columns of a suspect that are output weights of one MLP of the original."""

    mlp: Mlp
    aligned: Aligned


def pieces(weights: Path, original: Original) -> Iterator[Piece]:
    """Yield everything in `weights` that stems from output weights of `original`.

    One MLP is in memory at a time. Tensors are found by their names. If no name leads to output weights of the
    original, tensors are found by their values.

    Args:
        weights: Folder or safetensors file.
        original: The original.

    Raises:
        BadInput: `weights` has no safetensors.
    """
    stored, found = Checkpoint.of_all_files(weights), False
    of_bundle = weights.is_dir() and is_bundle(weights)
    for piece in _of_bundle(weights, original) if of_bundle else _named(stored, original):
        found = True
        yield piece
    # Names and config are the suspect's own, and may be wrong.
    if not found:
        yield from _unnamed(stored, original)


def _named(stored: Checkpoint, original: Original) -> Iterator[Piece]:
    """The pieces of a dense model whose tensors have the same names as those of the original."""
    named = original.read_from(stored)
    for mlp in original.mlps:
        if named.has_output_weights(mlp):
            aligned = align(named.output_weights(mlp), original.output_weights(mlp))
            if aligned is not None:
                yield Piece(mlp, aligned)


def _of_bundle(bundle: Path, original: Original) -> Iterator[Piece]:
    """The pieces of a bundle: its unprotected columns, and the bare columns of protected neurons.

    The carrier makes bare columns of the terms of order 0 and 1, as in the attack `collapse`.
    """
    stored, stated = Checkpoint(bundle), read_json(bundle / "config.json")["taylor_mlp"]
    for mlp in original.mlps:
        name, widths = f"{mlp.path}.terms.weight", _widths(stored, mlp.path, stated)
        if not widths:
            continue
        protected = widths[0]
        leading = stored.columns(name, 0, 2 * protected).float()
        carrier = stored.tensor(f"{mlp.path}.carrier").float()
        bare = leading[:, :protected] * carrier[0] + leading[:, protected:] * carrier[1]
        unprotected = stored.columns(name, sum(widths), stored.shape(name)[1]).float()
        aligned = align(torch.cat([bare, unprotected], dim=1), original.output_weights(mlp))
        if aligned is not None:
            yield Piece(mlp, aligned)


def _widths(stored: Checkpoint, path: str, stated: Any) -> list[int]:
    """The widths that a config states for an MLP, or none if they do not fit its tensors."""
    layers = stated.get("layers") if isinstance(stated, dict) else None
    widths = layers.get(path) if isinstance(layers, dict) else None
    needed = {f"{path}.terms.weight", f"{path}.carrier"}
    if not isinstance(widths, list) or len(widths) < 2 or not needed <= {*stored.names()}:
        return []
    if not all(isinstance(width, int) and width > 0 for width in widths) or widths[1] != widths[0]:
        return []
    terms, carrier = (stored.shape(name) for name in (f"{path}.terms.weight", f"{path}.carrier"))
    fits = len(terms) == 2 and sum(widths) <= terms[1] and carrier == (2, widths[0])
    return widths if fits else []


def _unnamed(stored: Checkpoint, original: Original) -> Iterator[Piece]:
    """The pieces among tensors of any name: each matrix and its transpose is compared with the weights of every MLP."""
    matrices = [name for name in stored.names() if len(stored.shape(name)) == 2 and stored.dtype(name) is not None]
    for mlp in original.mlps:
        down = original.output_weights(mlp)
        for name in matrices:
            for tensor in (stored.tensor(name), stored.tensor(name).T):
                aligned = align(tensor, down)
                if aligned is not None:
                    yield Piece(mlp, aligned)
