"""The stage `mark`: the converted model as one recipient gets it, and how far that may move the output of each MLP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from taylor_ops.activations import Activation
from taylor_ops.bound import moved_by_chance
from taylor_ops.convert import ConvertedModel
from taylor_ops.evidence.key import read_key
from taylor_ops.evidence.marking import Copy, MarkedModel
from taylor_ops.evidence.record import MarkedCopy
from taylor_ops.evidence_config import Marking
from taylor_ops.files import folder_that_appears_whole, require_free
from taylor_ops.original import Original
from taylor_ops.ranges import LayerRange, read_ranges, widened

Progress = Callable[[int, int], None]

# Of all smooth activations the largest -phi, of silu.
_LOWEST = 0.279


def copy_under(marking: Marking, version: str) -> Copy:
    """The copy that a config asks for; `BadInput` where its key cannot be read."""
    return Copy(read_key(marking.key), marking.recipient, version, marking.strength)


def mark(
    source: Path,
    ranges_file: Path,
    range_margin: float,
    converted: ConvertedModel,
    model: Path,
    copy: Copy,
    folder: Path,
    progress: Progress,
) -> ConvertedModel:
    """Write the model in `model`, of which `converted` is known, as `copy` into `folder`, whole or not at all.

    source, ranges_file, range_margin: what the a-priori bound of the mark is made from, see `marking_bound`.
    """
    require_free(folder, converted.bytes)
    with folder_that_appears_whole(folder) as partial:
        MarkedModel(model, copy).write(partial, progress)
    activation, ranges = Original(source).activation, read_ranges(ranges_file)
    layers = tuple(
        layer.model_copy(
            update={"marking": marking_bound(activation, ranges[layer.path], range_margin, copy.strength)}
        )
        for layer in converted.layers
    )
    known = MarkedCopy(recipient=copy.recipient, key=copy.key.name, strength=copy.strength)
    return converted.model_copy(update={"layers": layers, "mark": known})


def marking_bound(activation: Activation, captured: LayerRange, margin: float, strength: float) -> float:
    """How far a mark moves the output of one MLP at most, as a fraction of its median norm.

    It holds for all but one in a billion inputs in the widened ranges: the signs of the mark are independent, and
    neuron j adds at most strength ||w_j|| |u_j| |phi(z_j)|.
    """
    low, high, factor = widened(captured, margin)
    ends = torch.maximum(activation.value(low).abs(), activation.value(high).abs())
    largest = ends if activation.degree is not None else ends.clamp_min(_LOWEST)
    return moved_by_chance(strength * captured.weights.norms * factor * largest) / captured.output_norm
