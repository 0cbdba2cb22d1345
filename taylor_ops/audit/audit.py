"""The audit: published attacks on TaylorMLP releases, run against a bundle before anyone else does.

Adding an attack is one module beside this one with an `Attack`, one entry in `ATTACKS`, and its name and threshold in
`audit_config`; one that trains the whole model has a `Training` in `TRAININGS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taylor_ops.attacks import collapse, distillation, fine_tuning, least_squares, rank_one, ratios
from taylor_ops.attacks import distillation as warm_distillation
from taylor_ops.attacks import fine_tuning as lora
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.protected_layer import Attack
from taylor_ops.attacks.target import Target
from taylor_ops.attacks.training import Training
from taylor_ops.audit.rebuilt import measured_against
from taylor_ops.audit.record import AttackResult, AuditRecord
from taylor_ops.audit.run import Run
from taylor_ops.audit.timing import timed_compiled
from taylor_ops.config.audit import Audit
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.storage.files import scratch_beside

ATTACKS: dict[str, Attack] = {
    module.ATTACK.name: module.ATTACK
    for module in (rank_one, ratios, collapse, least_squares, distillation, warm_distillation)
}

TRAININGS: dict[str, Training] = {module.TRAINING.name: module.TRAINING for module in (fine_tuning, lora)}


def named(attacks: Sequence[str] | None) -> Audit:
    """Settings with these attacks, the default ones where none is named; `BadInput` for a name that is not known."""
    if not attacks:
        return Audit()
    known = sorted((*ATTACKS, *TRAININGS))
    unknown = next((name for name in attacks if name not in known), None)
    if unknown is not None:
        raise BadInput(f"attack `{unknown}` is not known", f"known are {', '.join(known)}")
    return Audit.model_validate({"attacks": tuple(dict.fromkeys(attacks))})


def texts_read(settings: Audit, exactness: Exactness) -> tuple[TextSource, ...]:
    """The texts of a release that its audit reads: that of a task only where an attack trains on it."""
    trains = any(name in TRAININGS for name in settings.attacks)
    return (*exactness.prompts, *(exactness.running_text if trains else ()))


def audit(
    original: Path, bundle: Path, settings: Audit, progress: Progress, conditions: Conditions | None = None
) -> AuditRecord:
    """Run the attacks of `settings` on a bundle; the original only scores what they recover."""
    conditions = conditions or Conditions()
    truth, names = Original(original), settings.attacks
    layers = len(truth.mlps)
    results: list[AttackResult] = []
    for number, name in enumerate(names):

        def report(done: int, before: int = number * layers) -> None:
            progress(before + done, len(names) * layers)

        with scratch_beside(conditions.work) as scratch:
            attack = ATTACKS[name] if name in ATTACKS else TRAININGS[name]
            target, run = Target(bundle, Path(scratch)), Run(attack, truth, settings, conditions, report)
            folder, rebuilt = run.over(target, name in settings.rebuild), None
            if folder is not None:
                rebuilt = measured_against(original, folder, target.dtype, settings, conditions)
            results.append(run.result(rebuilt))
    compiled = timed_compiled(original, bundle, conditions) if conditions.latency.compiled else None
    return AuditRecord(attacks=tuple(results), skipped=not results, compiled=compiled)
