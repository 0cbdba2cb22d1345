"""The audit: run published attacks on TaylorMLP releases against a bundle before anyone else does.

To add an attack:

1. Write one room in `taylor_ops/attacks/` that defines it: an `Attack` if it recovers one layer at a time, or a
   `Training` if it trains the whole model.
2. Add one entry under its name: an `Attack` to `ATTACKS`, or a `Training` to `TRAININGS`.
3. Add its name and its threshold to `taylor_ops/config/audit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from taylor_ops.attacks.collapse import COLLAPSE
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.attacks.distillation import DISTILLATION, WARM_DISTILLATION
from taylor_ops.attacks.fine_tuning import FINE_TUNING, LORA
from taylor_ops.attacks.least_squares import LEAST_SQUARES
from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer
from taylor_ops.attacks.rank_one import RANK_ONE
from taylor_ops.attacks.ratios import RATIOS
from taylor_ops.attacks.target import Target
from taylor_ops.attacks.training import Training, trained
from taylor_ops.audit.rebuilt import Found, rebuilt_from
from taylor_ops.audit.record import AttackResult, AuditRecord
from taylor_ops.audit.run import Run, attack_layers
from taylor_ops.audit.timing import timed_compiled
from taylor_ops.config.audit import Audit
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput
from taylor_ops.machine.usage import measured
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress, part_of
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

# Shares of the progress, where one attack on all layers is 1: a training, and a rebuilt model with all that is measured
# of it.
_TRAINING, _REBUILDING = 20, 3


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
    """Run the attacks of `settings` on a bundle. The original only scores what they recover.

    The attacks that recover layer by layer share one pass over the layers.
    """
    conditions = conditions or Conditions()
    truth, done = Original(original), 0
    layers = len(truth.mlps)
    trainings = sum(name in TRAININGS for name in settings.attacks)
    rebuilt = set(settings.attacks) & set(settings.rebuild)
    total = layers * (len(settings.attacks) + _TRAINING * trainings + _REBUILDING * len(rebuilt))

    def part(share: int) -> Progress:
        nonlocal done
        done += share * layers
        return part_of(progress, done - share * layers, share * layers, total)

    results: dict[str, AttackResult] = {}
    for names in _together(settings.attacks):
        with scratch_beside(conditions.work) as scratch:
            target = Target(bundle, Path(scratch) / "target", conditions.device)
            runs = {name: _run(name, target, truth, settings, conditions, part) for name in names}
            found: dict[str, Found] = {name: Found(Path(scratch) / name) for name in names if name in rebuilt}
            _attack_layers(runs, target, truth, found, part(len(names)))
            models = {
                name: rebuilt_from(weights, bundle, original, settings, conditions, part(_REBUILDING))
                for name, weights in found.items()
            }
            results |= {name: run.result(models.get(name)) for name, run in runs.items()}
    compiled = timed_compiled(original, bundle, conditions) if conditions.latency.compiled else None
    attacks = tuple(results[name] for name in settings.attacks)
    return AuditRecord(attacks=attacks, skipped=not attacks, compiled=compiled)


def _together(names: Sequence[str]) -> list[list[str]]:
    """The attacks that share a pass over the layers. Each training has the whole model, and a pass of its own."""
    by_layer = [name for name in names if name in ATTACKS]
    return ([by_layer] if by_layer else []) + [[name] for name in names if name in TRAININGS]


def _attack_layers(
    runs: Mapping[str, Run], target: Target, truth: Original, found: Mapping[str, Found], progress: Progress
) -> None:
    """Run attacks on every layer, and keep what those in `found` recover."""
    done, total = 0, len(runs) * len(truth.mlps)

    def keep(name: str, layer: ProtectedLayer, weights: Tensor) -> None:
        nonlocal done
        if name in found:
            found[name].add(layer, weights)
        done += 1
        progress(done, total)

    attack_layers(runs, target, truth, keep)


def _run(
    name: str, target: Target, truth: Original, settings: Audit, conditions: Conditions, part: Callable[[int], Progress]
) -> Run:
    """An attack, ready for the layers. A training is finished before that."""
    if name in ATTACKS:
        return Run(ATTACKS[name], settings)
    with measured() as cost:
        found = trained(TRAININGS[name], target, truth.folder, settings, conditions, part(_TRAINING))
    return Run(TRAININGS[name], settings, found, cost)
