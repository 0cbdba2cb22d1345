"""The stage `mark`: the converted model as one recipient gets it, and how far that may move the output of each MLP."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.config.evidence import Marking
from taylor_ops.conversion.record import ConvertedModel, MarkedCopy
from taylor_ops.evidence.key import read_key
from taylor_ops.evidence.marking import Copy, MarkedModel
from taylor_ops.evidence.pattern import layer_pattern, name_of, neurons_in_order
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.series.activations import Activation
from taylor_ops.series.bound import moved_by_chance
from taylor_ops.series.ranges import LayerRange, read_ranges, widened
from taylor_ops.storage.files import folder_that_appears_whole, require_free

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
    with folder_that_appears_whole(folder, converted.bytes) as partial:
        MarkedModel(model, copy).write(partial, progress)
    original, ranges = Original(source), read_ranges(ranges_file)
    bounds = {
        mlp.path: marking_bound(original.activation, ranges[mlp.path], range_margin, moved_norms(original, mlp, copy))
        for mlp in original.mlps
    }
    layers = tuple(layer.model_copy(update={"marking": bounds[layer.path]}) for layer in converted.layers)
    known = MarkedCopy(recipient=copy.recipient, key=copy.key.name, strength=copy.strength)
    return converted.model_copy(update={"layers": layers, "mark": known})


def moved_norms(original: Original, mlp: Mlp, copy: Copy) -> Tensor:
    """By how much, as an L2 norm, a mark moves the output weights of each neuron: [F] float64."""
    weights = original.weights(mlp)
    height, width = weights.down.shape
    pattern = layer_pattern(copy.key, name_of(original), mlp.path, (height, width))
    neuron = neurons_in_order(weights.gate)[torch.from_numpy(pattern.neuron)]
    moved = weights.down[torch.from_numpy(pattern.row), neuron].double().square()
    return copy.strength * torch.zeros(width, dtype=torch.float64).index_add_(0, neuron, moved).sqrt()


def marking_bound(activation: Activation, captured: LayerRange, margin: float, moved: Tensor) -> float:
    """How far a mark moves the output of one MLP at most, as a fraction of its median norm.

    moved: [F], of `moved_norms`. It holds for all but one in a billion inputs in the widened ranges: the signs of a
    mark are independent, and neuron j adds at most moved_j |u_j| |phi(z_j)|.
    """
    low, high, factor = widened(captured, margin)
    ends = torch.maximum(activation.value(low).abs(), activation.value(high).abs())
    largest = ends if activation.degree is not None else ends.clamp_min(_LOWEST)
    return moved_by_chance(moved * factor * largest) / captured.output_norm
