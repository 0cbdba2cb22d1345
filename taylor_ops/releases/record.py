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
from taylor_ops.tasks.record import TaskScores
from taylor_ops.verification.record import Verified


class StageCost(Record):
    """What a stage cost in this run.

    Attributes:
        seconds: Wall-clock time.
        peak_rss_bytes: Peak resident memory, with child processes.
        cached: Whether an earlier run made the result and this run reused it.
    """

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

    Attributes:
        disturbed: Number of pairs, in all trials, that were timed again because other programs used the processor.
        shapes: Slowdowns of the same plan at other batch sizes and prompt lengths.
        devices: Slowdowns of the same plan on other devices.
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
    """The slowdown that is left for a user who does not run the bundle as it is.

    Attributes:
        compiled: For a user who compiles the bundle. None if it was not measured.
        rebuilt: For the model that an attack rebuilds from the bundle. None if it was not measured.
    """

    compiled: Compiled | None
    rebuilt: Timed | None

    @property
    def rows(self) -> list[tuple[str, str, Timed | None]]:
        """What is run, what it is compared with, and the result."""
        alone, both = (self.compiled.alone, self.compiled.both) if self.compiled else (None, None)
        return [
            ("the bundle, compiled", "the original", alone),
            ("the bundle, compiled", "the original, compiled", both),
            ("the model that an attack rebuilds", "the original", self.rebuilt),
        ]


class BundlePlace(Record):
    """The place of the bundle below the run's folder, and its size."""

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
    """Everything about one release: `release.json`.

    Attributes:
        audit_thresholds: The share that each attack may recover. It binds if `audit_policy` is `block`.
        leaks: What the leak gate searched. None in older records, which did not keep it.
        published_at: When the bytes of this release were first published, in UTC.
        evidence: The recipient's mark. None if the release is nobody's copy.
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
    tasks: tuple[TaskScores, ...] = ()
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
