"""The plan of a release: the rule that gives every neuron its order."""

from __future__ import annotations

from taylor_ops.config.conversion import Basis
from taylor_ops.storage.record import Record


class Plan(Record):
    """Orders of all neurons: the smallest that keep `tolerance` in every layer, but at least `least_order`.

    tolerance: of the bound of each layer, as `conversion.tolerance`; where it is smaller than that, each series is as
    much more exact. Infinity for one order for all neurons. columns: stacked columns of all layers, each as high as the
    hidden size. clear_share: of the neurons of each layer, how many keep their output weights: those with the longest
    series, which cost the most, and of equally long ones those that add most to the bound. clear: of all layers, how
    many of the `neurons` do; each is one column.
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
        """Share of neurons whose output weights are withheld."""
        return 1 - self.clear / self.neurons
