"""Put the record of a release together from the records of its stages."""

from __future__ import annotations

from datetime import datetime

from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.record import BundleRecord
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.leaks.record import NoLeak
from taylor_ops.publishing.record import Published
from taylor_ops.releases.record import (
    BundlePlace,
    Coverage,
    IntrinsicShare,
    ReleaseRecord,
    Slowdown,
    SourcePlace,
    StageCost,
)
from taylor_ops.storage.record import Record
from taylor_ops.verification.record import Verified


class Publication(Record):
    """The records of one publication: the bundle as it was assembled, searched for leaks, published and verified."""

    bundle: BundleRecord
    leaks: NoLeak | None
    published: Published
    verified: Verified
    published_at: datetime | None = None


def release_record(
    config: ReleaseConfig,
    ranges: CapturedRanges,
    findings: Findings,
    publication: Publication,
    stages: dict[str, StageCost],
) -> ReleaseRecord:
    """Put the records of all stages together."""
    source, converted, audit = findings.source, findings.converted, findings.audit
    latency, exactness, bundle = findings.latency, findings.exactness, publication.bundle
    achieved = latency.achieved
    return ReleaseRecord(
        name=config.name,
        version=config.version,
        source=SourcePlace(
            origin=source.origin, model_type=source.model_type, parameters=source.parameters, sha256=source.sha256
        ),
        calibration_tokens=ranges.tokens,
        coverage=Coverage(
            neurons_protected=converted.neurons_protected,
            neurons_total=converted.neurons_total,
            mean_order=converted.plan.mean_order,
            columns=converted.plan.columns,
            layers=converted.layers,
        ),
        slowdown=Slowdown(
            target=latency.target,
            tolerance=latency.tolerance,
            achieved=achieved.slowdown,
            ci95=achieved.ci95,
            device=latency.device,
            batch_size=latency.batch_size,
            prompt_tokens=latency.prompt_tokens,
            new_tokens=latency.new_tokens,
            layers=latency.layers,
            layers_measured=latency.layers_measured,
            reachable=latency.reachable,
            trials=latency.trials,
            disturbed=latency.disturbed,
            shapes=latency.shapes,
            devices=latency.devices,
        ),
        exactness={data_set.name: data_set for data_set in exactness.data_sets},
        layer_errors=exactness.layers,
        tie_margin=exactness.tie_margin,
        tie_rule=exactness.tie_rule,
        perplexity=exactness.perplexity,
        tasks=findings.tasks,
        audit={attack.attack: attack for attack in audit.attacks},
        audit_skipped=audit.skipped,
        audit_not_run=tuple(audit.not_run),
        audit_policy=config.audit.policy,
        audit_thresholds=config.audit.thresholds.model_dump(),
        leaks=publication.leaks,
        intrinsic=IntrinsicShare(
            compiled=audit.compiled,
            rebuilt=next((attack.rebuilt.residual for attack in audit.attacks if attack.rebuilt), None),
        ),
        bundle=BundlePlace(path=bundle.folder, bytes=bundle.bytes, original_bytes=converted.original_bytes),
        published=publication.published,
        verified=publication.verified,
        stages=stages,
        approval=findings.approval,
        published_at=publication.published_at,
        evidence=converted.mark,
    )
