"""What the stages `calibrate` and `transfer` leave: the record of the slowdown."""

from __future__ import annotations

from taylor_ops.series.plan import Plan
from taylor_ops.storage.record import Record


class Pairs(Record):
    """A slowdown and the pairs that it comes from.

    Attributes:
        slowdown: Median of the paired ratios. Of several loadings, the geometric mean of their medians.
        ci95: Its 95 % interval. Of several loadings, the interval in which that of one more loading lies in 95 % of
            cases.
        seconds_original, seconds_bundle: Raw samples, one a pair, each for the forced number of new tokens.
        loadings: How many of them each loading of the models gave, in their order. Empty if the models were loaded
            once.
    """

    slowdown: float
    ci95: tuple[float, float]
    seconds_original: tuple[float, ...]
    seconds_bundle: tuple[float, ...]
    loadings: tuple[int, ...] = ()


class Trial(Pairs):
    """One measured candidate, and the slowdown that was predicted for it.

    Attributes:
        ci98_of_mean: Of several loadings, the 98 % interval of the slowdown that loadings have on average, by which the
            calibration decides.
    """

    ci98_of_mean: tuple[float, float] | None = None
    plan: Plan
    predicted: float


class ShapeSlowdown(Pairs):
    """The slowdown of the chosen plan at another batch size and prompt length than the target has."""

    batch_size: int
    prompt_tokens: int


class DeviceSlowdown(Pairs):
    """The slowdown of the chosen plan on another device that has a target of its own.

    Attributes:
        device: Description of the device.
        layers_measured: As in `LatencyRecord`, on this device.
        target, tolerance: The slowdown that the config asks for on this device, and how far off it may be, relative.
        met: Whether the slowdown is surely within the tolerance.
    """

    device: str
    layers_measured: int
    target: float
    tolerance: float
    met: bool = True


class LatencyRecord(Record):
    """The chosen plan and every trial on the way.

    If memory did not hold both models, every trial timed `layers_measured` of their `layers`. The seconds of the trials
    are then scaled to all layers: all of a decode step but the head is taken to grow with their number.

    Attributes:
        reachable: Predicted slowdowns of the cheapest and of the dearest plan.
        layers: Decoder layers of the original.
        layers_measured: Decoder layers that the trials timed.
        disturbed: Pairs that were timed again because other programs had the processor.
        shapes, devices: What `transfer` measures of the plan. Empty before.
    """

    plan: Plan
    target: float
    tolerance: float
    reachable: tuple[float, float]
    device: str
    threads: int
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    layers: int
    layers_measured: int
    trials: tuple[Trial, ...]
    disturbed: int = 0
    shapes: tuple[ShapeSlowdown, ...] = ()
    devices: tuple[DeviceSlowdown, ...] = ()

    @property
    def achieved(self) -> Trial:
        """The trial of the chosen plan."""
        return self.trials[-1]


class Transfer(Record):
    """The slowdowns of one plan at the shapes of `latency.also` and on the devices of `latency.devices`."""

    shapes: tuple[ShapeSlowdown, ...]
    devices: tuple[DeviceSlowdown, ...]
