"""The stages validate, tasks and audit as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from flows.run.release_run import ReleaseRun
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
from taylor_ops.progress import Progress
from taylor_ops.source.record import ResolvedSource
from taylor_ops.stages import (
    AUDIT,
    CONVERT,
    TASKS,
    VALIDATE,
    inputs_of_audit,
    inputs_of_tasks,
    inputs_of_validate,
)
from taylor_ops.storage.stage_cache import kept_under_key
from taylor_ops.tasks import evaluate as scored
from taylor_ops.tasks.gate import judged
from taylor_ops.tasks.record import TaskScores


@task(task_run_name="validate")
def validate(
    run: ReleaseRun, source: ResolvedSource, ranges: CapturedRanges, converted: ConvertedModel
) -> ExactnessRecord:
    """Check the stored tensors, then judge tokens and errors against the original on held-out prompts: three gates."""
    config, device, copy = run.config, run.device, run.copy

    def compare(folder: Path, progress: Progress) -> ExactnessRecord:
        subject, unmarked = run.subject(source, ranges), run.place.stage(CONVERT.name)
        require_as_planned(subject, converted.plan, unmarked)
        if copy is not None:
            MarkedModel(unmarked, copy).require_in(run.model_folder)
        return exact.validate(
            subject,
            run.model_folder,
            config.exactness,
            device,
            progress,
            kept_under_key(folder) / "offloaded",
        )

    record = run.perform(
        VALIDATE,
        inputs_of_validate(config, source, ranges, converted, copy, device),
        compare,
        device=device,
    )
    gate.require_exact(record)
    require_within_bounds(record.layers, converted.layers)
    return record


def tasks(run: ReleaseRun, source: ResolvedSource) -> tuple[TaskScores, ...]:
    """Score both models on the tasks that the config names. Without any, there is nothing to do."""
    return answer_tasks(run, source) if run.config.exactness.tasks else ()


@task(task_run_name="tasks")
def answer_tasks(run: ReleaseRun, source: ResolvedSource) -> tuple[TaskScores, ...]:
    """Score original and bundle on tasks of lm-eval, and compare the scores: a gate."""
    config, device = run.config, run.device
    record = run.perform(
        TASKS,
        inputs_of_tasks(config, source, run.model_folder, device),
        lambda folder, progress: scored.evaluate(
            source.folder,
            run.model_folder,
            config.conversion.dtype,
            config.exactness.tasks,
            device,
            config.seed,
            progress,
            kept_under_key(folder) / "offloaded",
        ),
        device=device,
        less="lower `batch_size` of the tasks in `exactness.tasks`",
    )
    return judged(record, config.exactness.tasks).tasks


@task(task_run_name="audit")
def audit(
    run: ReleaseRun, source: ResolvedSource, converted: ConvertedModel, exactness: ExactnessRecord
) -> AuditRecord:
    """Attack the converted model, record what the attacks recover, and judge it if the config asks for that."""
    config, device, copy = run.config, run.device, run.copy

    def run_attacks(folder: Path, progress: Progress) -> AuditRecord:
        conditions = Conditions(
            config.exactness.prompts,
            config.latency,
            device,
            config.seed,
            kept_under_key(folder) / "rebuilt",
            config.exactness.running_text,
            {one.prompt_tokens: one.new_tokens for one in exactness.continuations},
        )
        return attack(source.folder, run.model_folder, config.audit, progress, conditions)

    record = run.perform(
        AUDIT,
        inputs_of_audit(config, source, converted, exactness, copy, device),
        run_attacks,
        device=device,
    )
    require_allowed(record, config.audit)
    return record
