"""The record of what the command `plan` finds."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class ProbeSample(Record):
    """What the estimates of orders and slowdowns rest on.

    Attributes:
        layers: Number of layers whose ranges were seen.
        tokens: Number of calibration tokens over which they were seen.
        total_tokens: Number of tokens of the whole calibration text.
        captured: Whether an earlier run captured the ranges for this release.
        layers_timed: Number of layers whose decode steps were timed.
        pairs: Number of timed pairs of decode steps.
        busy: Whether the machine was too busy to time them well.
    """

    layers: int
    tokens: int
    total_tokens: int
    captured: bool
    layers_timed: int
    pairs: int
    busy: bool


class Preflight(Record):
    """What a release is expected to take and reach.

    Attributes:
        sample: What the estimates rest on. None while the weights are still on the Hub: `reachable` then rests on
            bytes alone and begins at order 1 for all neurons, and nothing that depends on orders is known.
        reachable: Slowdowns of the cheapest and of the dearest plan.
        cheapest: Mean order of the cheapest plan that protects every neuron.
        cheapest_slowdown: Slowdown of that plan.
        least_protected: The share of neurons that the config asks to protect.
        protected: About the share of neurons that the plan for the target protects.
        mean_order: Mean order of the plan for the target.
        read_bytes: Size of the weights as the source stores them.
        to_fetch: Bytes of the source that are still to be fetched.
        bundle_bytes: Size of the bundle with the plan for the target.
        original_bytes: Size of the original in the data type of the bundle.
        peak_bytes: Memory that both models take. With less free memory, layers are read from disk.
        least_bytes: Memory for the layers of both models that calibration cannot do without.
        seconds: Estimated time of each stage, without any download.
        left: Files of the source that are left where they are. None if nobody says which files it has.
        notes: What else is worth knowing of the source, in words.
        pinned: Whether `latency.columns` names the plan. No other plan is within reach then.
        warnings: What the release will need and seems to lack, in words.
    """

    origin: str
    access: str
    source_license: str
    card_license: str
    neurons: int
    layers: int
    sample: ProbeSample | None
    target: float
    reachable: tuple[float, float]
    cheapest: float | None
    cheapest_slowdown: float
    least_protected: float
    protected: float
    mean_order: float
    read_bytes: int
    to_fetch: int
    bundle_bytes: int
    original_bytes: int
    disk_needed: int
    disk_free: int
    peak_bytes: int
    least_bytes: int
    memory_free: int
    seconds: dict[str, float]
    left: tuple[str, ...] | None = ()
    notes: tuple[str, ...] = ()
    pinned: bool = False
    warnings: tuple[str, ...] = ()
