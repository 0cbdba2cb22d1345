"""The plan of a release: the rule that gives every neuron its order."""

from __future__ import annotations

from taylor_ops.config.conversion import Basis
from taylor_ops.storage.record import Record


class Plan(Record):
    """The rule that gives every neuron the smallest order that keeps `tolerance`, but at least `least_order`.

    Attributes:
        basis: Basis of the series.
        tolerance: Tolerance of the bound of each layer, as `conversion.tolerance`. If it is smaller than the configured
            one, each series is more exact by the same ratio. Infinity stands for one order for all neurons.
        least_order: The least order of a protected neuron. One whose output weights are all zero has order 1.
        columns: Stacked columns of all layers. The height of a column is the hidden size.
        neurons: Neurons of all layers.
        clear_share: Share of the neurons of each layer that are unprotected. They are the neurons with the longest
            series, which cost the most. Among equally long series, they are those that add most to the bound.
        clear: How many neurons of all layers are unprotected. Each has one column.
    """

    basis: Basis
    tolerance: float
    least_order: int
    columns: int
    neurons: int
    clear_share: float = 0.0
    clear: int = 0

    @property
    def mean_order(self) -> float:
        """Mean expansion order of a protected neuron."""
        return (self.columns - self.clear) / (self.neurons - self.clear) - 1

    @property
    def protected(self) -> float:
        """Share of the neurons that are protected."""
        return 1 - self.clear / self.neurons
