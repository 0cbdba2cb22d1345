"""What the command `plan` finds: its record."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class ProbeSample(Record):
    """What the estimates of orders and slowdowns rest on.

    layers, tokens: on which ranges were seen. captured: whether those are the release's own, of an earlier run.
    layers_timed, pairs: of decode steps. busy: whether the machine was too busy to time them well.
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

    sample: None where the weights are still on the Hub: then `reachable` goes from order 1 for all neurons by the bytes
    alone, and what depends on orders is not known. reachable: slowdowns of the cheapest and of the dearest plan.
    cheapest: mean order of the cheapest that protects every neuron, cheapest_slowdown: what that costs. protected:
    about what share of neurons the plan for the target protects, least_protected: what share the config asks for.
    mean_order, bundle_bytes: of the plan for the target. to_fetch, read_bytes: of the source. peak_bytes: of memory
    where that is free; with less, layers are read from disk. least_bytes: of the layers of both models that calibration
    cannot do without. seconds: by stage, without any download. pinned: whether `latency.columns` names the plan, which
    alone is within reach then.
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
    disk_needed: int
    disk_free: int
    peak_bytes: int
    least_bytes: int
    memory_free: int
    seconds: dict[str, float]
    pinned: bool = False
