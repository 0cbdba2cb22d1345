"""What the stages `calibrate` and `transfer` leave: the record of the slowdown."""

from __future__ import annotations

from taylor_ops.series.plan import Plan
from taylor_ops.storage.record import Record


class Pairs(Record):
    """A slowdown and its interval. seconds_*: raw samples, one a pair, each for the forced number of new tokens."""

    slowdown: float
    ci95: tuple[float, float]
    seconds_original: tuple[float, ...]
    seconds_bundle: tuple[float, ...]


class Trial(Pairs):
    """One measured candidate, and the slowdown that was predicted for it."""

    plan: Plan
    predicted: float


class ShapeSlowdown(Pairs):
    """The slowdown of the chosen plan at another batch size and prompt length than that of the target."""

    batch_size: int
    prompt_tokens: int


class DeviceSlowdown(Pairs):
    """The slowdown of the chosen plan on another device, and whether it is within `tolerance` of a target of its own.

    layers_measured: as in `LatencyRecord`, on that device.
    """

    device: str
    layers_measured: int
    target: float
    tolerance: float
    met: bool = True


class LatencyRecord(Record):
    """The chosen plan and every trial on the way. reachable: predicted slowdowns of the cheapest and dearest plan.

    layers_measured of layers, in every trial: where memory did not hold the whole models, fewer were timed, and the
    seconds of the trials are those for all of them: the rest of a decode step but the head is taken to grow with the
    layers. disturbed: pairs that were timed again because other programs had the processor. shapes, devices: what
    `transfer` finds of the plan elsewhere; empty before.
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
