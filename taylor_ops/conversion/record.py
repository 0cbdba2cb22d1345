"""What the stages `convert` and `mark` leave: the record of a converted model."""

from __future__ import annotations

from taylor_ops.series.plan import Plan
from taylor_ops.storage.record import Record


class MarkedCopy(Record):
    """Whose copy a model is. key: the name of the key; strength: how far marked weights are moved, relative."""

    recipient: str
    key: str
    strength: float


class LayerConversion(Record):
    """What became of one MLP with `neurons`, `clear` of which keep their output weights.

    columns: of the terms, and one for each in clear. mean_order: of the others.
    truncation, rounding, marking: parts of the a-priori bound on the error of its output, as fractions of its median
    norm over the calibration text; marking is what a mark of the recipient adds, 0 without one.
    """

    path: str
    neurons: int
    clear: int = 0
    columns: int
    mean_order: float
    max_order: int
    truncation: float
    rounding: float
    marking: float = 0.0

    @property
    def bound(self) -> float:
        """All its parts together."""
        return self.truncation + self.rounding + self.marking


class ConvertedModel(Record):
    """A converted model in a folder: loadable, without card and manifest.

    neurons_protected of neurons_total have no output weights in the folder. bytes: of all tensors. mark: whose copy it
    is, None where it is nobody's.
    """

    plan: Plan
    neurons_protected: int
    neurons_total: int
    bytes: int
    original_bytes: int
    layers: tuple[LayerConversion, ...]
    mark: MarkedCopy | None = None
