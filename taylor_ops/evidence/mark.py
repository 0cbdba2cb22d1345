"""The stage `mark`: write one recipient's copy of a converted model, and bound how far marks move each MLP's output."""

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

# Silu has the largest -phi of all smooth activations.
_LOWEST = 0.279


def copy_under(marking: Marking, version: str) -> Copy:
    """The copy that a config asks for; `BadInput` if its key cannot be read."""
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
    """Write a converted model as one recipient's copy into `folder`, whole or not at all.

    Args:
        source: Folder of the original. It, `ranges_file` and `range_margin` give the a-priori bound of the mark, see
            `marking_bound`.
        ranges_file: File of the captured ranges.
        range_margin: By how much the ranges are widened.
        converted: Record of the converted model.
        model: Folder of the converted model.
        copy: The copy to write.
        folder: Receives the marked model.
        progress: Receives the files done and their total.

    Returns:
        The record of the marked model.
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
    marked_copy = MarkedCopy(recipient=copy.recipient, key=copy.key.name, strength=copy.strength)
    return converted.model_copy(update={"layers": layers, "mark": marked_copy})


def moved_norms(original: Original, mlp: Mlp, copy: Copy) -> Tensor:
    """The L2 norm [F] float64 by which a mark moves the output weights of each neuron."""
    weights = original.weights(mlp)
    height, width = weights.down.shape
    pattern = layer_pattern(copy.key, name_of(original), mlp.path, (height, width))
    neuron = neurons_in_order(weights.gate)[torch.from_numpy(pattern.neuron)]
    moved = weights.down[torch.from_numpy(pattern.row), neuron].double().square()
    return copy.strength * torch.zeros(width, dtype=torch.float64).index_add_(0, neuron, moved).sqrt()


def marking_bound(activation: Activation, captured: LayerRange, margin: float, moved: Tensor) -> float:
    """Bound how far a mark moves the output of one MLP, as a fraction of the median norm of this output.

    The bound holds for all but one in a billion inputs in the widened ranges: the signs of a mark are independent, and
    neuron j adds at most moved_j |u_j| |phi(z_j)|.

    Args:
        activation: The activation of the MLP.
        captured: Its captured ranges.
        margin: By how much to widen them.
        moved: The norms [F] from `moved_norms`.
    """
    low, high, factor = widened(captured, margin)
    ends = torch.maximum(activation.value(low).abs(), activation.value(high).abs())
    largest = ends if activation.degree is not None else ends.clamp_min(_LOWEST)
    return moved_by_chance(moved * factor * largest) / captured.output_norm
