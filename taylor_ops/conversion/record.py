"""What the stages `convert` and `mark` leave: the record of a converted model."""

from __future__ import annotations

from taylor_ops.series.plan import Plan
from taylor_ops.storage.record import Record


class MarkedCopy(Record):
    """Whose copy a model is.

    Attributes:
        recipient: Who receives the copy.
        key: The name of the key.
        strength: How far marked weights are moved, as a share of their value.
    """

    recipient: str
    key: str
    strength: float


class LayerConversion(Record):
    """The conversion of one MLP.

    Three attributes are parts of the a-priori bound on the error of its output, as fractions of the output's median
    norm over the calibration text: `truncation`, `rounding` and `marking`.

    Attributes:
        path: Module path of the MLP.
        neurons: All its neurons.
        clear: Its unprotected neurons, which keep their output weights.
        columns: Columns of the protected neurons' terms, and one for each unprotected neuron.
        mean_order: Mean order of the protected neurons.
        max_order: Largest order of a protected neuron.
        truncation: What cutting off the series may cost.
        rounding: What rounding the stored terms may cost.
        marking: What the mark of a recipient adds. 0 without a mark.
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
        """The whole a-priori bound: the sum of its parts."""
        return self.truncation + self.rounding + self.marking


class ConvertedModel(Record):
    """A converted model in a folder: loadable, without card and manifest.

    Attributes:
        neurons_protected: How many of `neurons_total` have no output weights in the folder.
        bytes: Bytes of all tensors.
        original_bytes: Bytes of the original in the same data type.
        mark: Whose copy the model is. None if it has no mark.
    """

    plan: Plan
    neurons_protected: int
    neurons_total: int
    bytes: int
    original_bytes: int
    layers: tuple[LayerConversion, ...]
    mark: MarkedCopy | None = None
