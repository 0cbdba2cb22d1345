"""The record of a whole release, as `release.json` keeps it and the report shows it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from taylor_ops.audit.record import AttackResult, Compiled, Timed
from taylor_ops.bundle.record import Approval
from taylor_ops.conversion.record import LayerConversion, MarkedCopy
from taylor_ops.exactness.record import DataSetExactness, LayerError, Perplexity
from taylor_ops.latency.record import DeviceSlowdown, ShapeSlowdown, Trial
from taylor_ops.leaks.record import NoLeak
from taylor_ops.publishing.record import Published
from taylor_ops.storage.record import Record
from taylor_ops.verification.record import Verified


class StageCost(Record):
    """What a stage cost in this run. cached: its result was made by an earlier run and reused."""

    seconds: float
    peak_rss_bytes: int
    cached: bool


class Coverage(Record):
    """How much of the model is protected, and with how many terms."""

    neurons_protected: int
    neurons_total: int
    mean_order: float
    columns: int
    layers: tuple[LayerConversion, ...]


class Slowdown(Record):
    """Target and achieved slowdown with the 95 % interval of the chosen plan, and every trial on the way.

    disturbed: pairs of the trials that were timed again because other programs had the processor.
    shapes, devices: what the same plan gives at other batch sizes and prompt lengths, and on other devices.
    """

    target: float
    tolerance: float
    achieved: float
    ci95: tuple[float, float]
    device: str
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    layers: int
    layers_measured: int
    reachable: tuple[float, float]
    trials: tuple[Trial, ...]
    disturbed: int = 0
    shapes: tuple[ShapeSlowdown, ...]
    devices: tuple[DeviceSlowdown, ...]


class IntrinsicShare(Record):
    """What is left of the slowdown for who does not run the bundle as it is; None for what was not measured.

    compiled: for a user who compiles the bundle. rebuilt: with the model that an attack makes of it.
    """

    compiled: Compiled | None
    rebuilt: Timed | None

    @property
    def rows(self) -> list[tuple[str, str, Timed | None]]:
        """What is run, what it is timed beside, and the result."""
        alone, both = (self.compiled.alone, self.compiled.both) if self.compiled else (None, None)
        return [
            ("the bundle, compiled", "the original", alone),
            ("the bundle, compiled", "the original, compiled", both),
            ("the model that an attack rebuilds", "the original", self.rebuilt),
        ]


class BundlePlace(Record):
    """Where the bundle is, below the run's folder, and its size."""

    path: str
    bytes: int
    original_bytes: int


class SourcePlace(Record):
    """What was released."""

    origin: str
    model_type: str
    parameters: int
    sha256: dict[str, str]


class ReleaseRecord(Record):
    """Everything about one release: `release.json`. published_at: when its bytes were first published, in UTC.

    audit_thresholds: share that each attack may recover, which binds where `audit_policy` is `block`. leaks: what the
    leak gate looked through; None in records from before it was kept. evidence: whose copy it is, None where it is
    nobody's.
    """

    name: str
    version: str
    source: SourcePlace
    calibration_tokens: int
    coverage: Coverage
    slowdown: Slowdown
    exactness: dict[str, DataSetExactness]
    layer_errors: tuple[LayerError, ...]
    tie_margin: float
    tie_rule: str
    perplexity: tuple[Perplexity, ...]
    audit: dict[str, AttackResult]
    audit_skipped: bool
    audit_not_run: tuple[str, ...] = ()
    audit_policy: str = "disclose"
    audit_thresholds: dict[str, float] = Field(default_factory=dict)
    leaks: NoLeak | None = None
    intrinsic: IntrinsicShare
    bundle: BundlePlace
    published: Published
    verified: Verified
    stages: dict[str, StageCost]
    approval: Approval | None = None
    published_at: datetime | None = None
    evidence: MarkedCopy | None = None
