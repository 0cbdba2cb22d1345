"""The stages validate and audit as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from flows.run.release_run import Release
from flows.tasks.conversion import copy_of, model_of, ranges_file
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.audit.audit import audit as attack
from taylor_ops.audit.gate import require_allowed
from taylor_ops.audit.record import AuditRecord
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.conversion.integrity import require_as_planned
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.evidence.marking import MarkedModel
from taylor_ops.exactness import gate
from taylor_ops.exactness import validate as exact
from taylor_ops.exactness.layers import require_within_bounds
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.machine.devices import device_named
from taylor_ops.progress import Progress
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import AUDIT, VALIDATE, inputs_of_audit, inputs_of_validate
from taylor_ops.storage.stage_cache import kept_under_key


@task(task_run_name="validate {release.label}")
def validate(
    release: Release, source: ResolvedSource, ranges: CapturedRanges, converted: ConvertedModel
) -> ExactnessRecord:
    """Check what was stored, compare tokens with the original on held-out prompts, and judge; three gates."""
    config, device = release.config, device_named(release.config.device)
    bundle, copy = model_of(release), copy_of(release)

    def compare(folder: Path, progress: Progress) -> ExactnessRecord:
        unmarked = release.stages / "convert"
        require_as_planned(source.folder, ranges_file(release, ranges), converted.plan, config.conversion, unmarked)
        if copy is not None:
            MarkedModel(unmarked, copy).require_in(bundle)
        return exact.validate(
            source.folder,
            bundle,
            ranges_file(release, ranges),
            config.conversion,
            config.exactness,
            device,
            progress,
            kept_under_key(folder) / "offloaded",
        )

    record = release.perform(
        VALIDATE,
        inputs_of_validate(config, source, ranges, converted, copy, device),
        compare,
        device=device,
    )
    gate.require_exact(record)
    require_within_bounds(record.layers, converted.layers)
    return record


@task(task_run_name="audit {release.label}")
def audit(release: Release, source: ResolvedSource, converted: ConvertedModel) -> AuditRecord:
    """Attack the converted model, record what the attacks recover, and judge where the config asks for it."""
    config, device = release.config, device_named(release.config.device)
    copy = copy_of(release)

    def run(folder: Path, progress: Progress) -> AuditRecord:
        conditions = Conditions(
            config.exactness.prompts,
            config.latency,
            device,
            config.seed,
            kept_under_key(folder) / "rebuilt",
            config.exactness.running_text,
        )
        return attack(source.folder, model_of(release), config.audit, progress, conditions)

    record = release.perform(
        AUDIT,
        inputs_of_audit(config, source, converted, copy, device),
        run,
        device=device,
    )
    require_allowed(record, config.audit)
    return record
