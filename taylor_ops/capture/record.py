"""The record of the stage `capture`: where the captured ranges are."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class CapturedRanges(Record):
    """The captured ranges of a model.

    Attributes:
        file: Name of a safetensors file. For every MLP it has `<mlp path>.low`, `.high`, `.factor`, `.norms` and
            `.peaks` [F], and the single numbers `.output_norm`, `.rows` and `.alignment`. `LayerRange` and
            `OutputWeights` say what they mean.
        sha256: Hash of this file.
        tokens: How many tokens the calibration text has.
    """

    file: str
    sha256: str
    layers: int
    neurons: int
    tokens: int
