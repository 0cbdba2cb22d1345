"""What the stage `capture` leaves: the record of the captured ranges."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class CapturedRanges(Record):
    """The captured ranges of a model.

    file: name of a safetensors file with `<mlp path>.low|.high|.factor|.norms|.peaks` [F] and the single numbers
    `.output_norm`, `.rows` and `.alignment`, as `LayerRange` and `OutputWeights` have them.
    """

    file: str
    sha256: str
    layers: int
    neurons: int
    tokens: int
