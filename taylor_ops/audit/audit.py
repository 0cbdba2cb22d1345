"""The audit: run published attacks on TaylorMLP releases against a bundle before anyone else does.

To add an attack:

1. Write one room in `taylor_ops/attacks/` that defines it: an `Attack` if it recovers one layer at a time, or a
   `Training` if it trains the whole model.
2. Add one entry under its name: an `Attack` to `ATTACKS`, or a `Training` to `TRAININGS`.
3. Add its name and its threshold to `taylor_ops/config/audit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taylor_ops.attacks.collapse import COLLAPSE
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.distillation import DISTILLATION, WARM_DISTILLATION
from taylor_ops.attacks.fine_tuning import FINE_TUNING, LORA
from taylor_ops.attacks.least_squares import LEAST_SQUARES
from taylor_ops.attacks.protected_layer import Attack
from taylor_ops.attacks.rank_one import RANK_ONE
from taylor_ops.attacks.ratios import RATIOS
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
    "rank_one": RANK_ONE,
    "ratios": RATIOS,
    "collapse": COLLAPSE,
    "least_squares": LEAST_SQUARES,
    "distillation": DISTILLATION,
    "warm_distillation": WARM_DISTILLATION,
}

TRAININGS: dict[str, Training] = {
    "fine_tuning": FINE_TUNING,
    "lora": LORA,
}


def named(attacks: Sequence[str] | None) -> Audit:
    """Settings with these attacks, or with the default ones if none is named; `BadInput` for an unknown name."""
    if not attacks:
        return Audit()
    names = sorted((*ATTACKS, *TRAININGS))
    unknown = next((name for name in attacks if name not in names), None)
    if unknown is not None:
        raise BadInput(f"attack `{unknown}` is not known", f"known are {', '.join(names)}")
    return Audit.model_validate({"attacks": tuple(dict.fromkeys(attacks))})


def texts_read(settings: Audit, exactness: Exactness) -> tuple[TextSource, ...]:
    """The texts of a release that its audit reads: the prompts, and the running text if an attack trains on it."""
    trains = any(name in TRAININGS for name in settings.attacks)
    return (*exactness.prompts, *(exactness.running_text if trains else ()))


def audit(
    original: Path, bundle: Path, settings: Audit, progress: Progress, conditions: Conditions | None = None
) -> AuditRecord:
    """Run the attacks of `settings` on a bundle. The original only scores what they recover."""
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
