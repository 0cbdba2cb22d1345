"""Which direction is tighter: the keys that guard a release, and what a run may make of each of them.

An override may tighten these keys, and loosens one only if the file lists it under `overridable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Literal, NamedTuple

from taylor_ops.config.evidence import STRENGTH
from taylor_ops.config.latency import DeviceTarget

Guarded = Literal[
    "conversion.tolerance",
    "conversion.order",
    "conversion.min_protected",
    "latency.tolerance",
    "latency.devices",
    "exactness.tasks",
    "audit.attacks",
    "audit.samples",
    "audit.steps",
    "audit.tuning_steps",
    "audit.lora_rank",
    "audit.policy",
    "audit.thresholds.rank_one",
    "audit.thresholds.ratios",
    "audit.thresholds.collapse",
    "audit.thresholds.least_squares",
    "audit.thresholds.distillation",
    "audit.thresholds.warm_distillation",
    "audit.thresholds.fine_tuning",
    "audit.thresholds.lora",
    "evidence",
    "publish.signing",
    "publish.approval",
    "publish.private",
    "publish.gated",
    "publish.review",
]

Rule = Callable[[Any, Any], bool]
"""Takes the value of the file and the one of the run. Says whether the one of the run is at least as tight."""


class Direction(NamedTuple):
    """What is tighter for one key, in words that follow "tighter is", and the rule that decides it."""

    tighter: str
    rule: Rule


def _later_of(*values: Any) -> Rule:
    """The rule of a key with a few values, from the loosest to the tightest."""
    return lambda file, run: values.index(run) >= values.index(file)


def _each_promise_kept(file: Sequence[Mapping[str, Any]], run: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every device of the file is still promised, within no wider tolerance."""
    usual = DeviceTarget.model_fields["tolerance"].default
    within = {(one["device"], one.get("threads")): one.get("tolerance", usual) for one in run}
    return all(within.get((one["device"], one.get("threads")), inf) <= one.get("tolerance", usual) for one in file)


def _each_task_asked(file: Sequence[Mapping[str, Any]], run: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every task of the file is still asked, on no fewer documents, and no wider difference is allowed."""
    found = {(one.get("name"), one.get("file")): one for one in run}

    def kept(task: Mapping[str, Any]) -> bool:
        other = found.get((task.get("name"), task.get("file")))
        return (
            other is not None
            and (other.get("limit") or inf) >= (task.get("limit") or inf)
            and other.get("difference", 0) <= task.get("difference", 0)
        )

    return all(map(kept, file))


def _mark_kept(file: Mapping[str, Any] | None, run: Mapping[str, Any] | None) -> bool:
    """Whether a copy is marked as the owner asks: under the owner's key, and no more weakly. Its recipient is free."""
    if file is None or run is None:
        return file is None
    return bool(run["key"] == file["key"] and run.get("strength", STRENGTH) >= file.get("strength", STRENGTH))


_ON = Direction("`true`", _later_of(False, True))
_SMALLER = Direction("a smaller number", lambda file, run: run <= file)
_LARGER = Direction("a larger number", lambda file, run: run >= file)

TIGHTER: dict[Guarded, Direction] = {
    "conversion.tolerance": _SMALLER,
    # Without an order, every neuron gets the one that the tolerance needs.
    "conversion.order": Direction(
        "no order, or a higher one", lambda file, run: run is None or (file is not None and run >= file)
    ),
    "conversion.min_protected": _LARGER,
    "latency.tolerance": _SMALLER,
    "latency.devices": Direction("every device of the file, with no wider `tolerance`, or more", _each_promise_kept),
    "exactness.tasks": Direction(
        "every task of the file, with no smaller `limit` and no larger `difference`, or more", _each_task_asked
    ),
    "audit.attacks": Direction("every attack of the file, or more", lambda file, run: set(file) <= set(run)),
    # A weaker attack would pass a threshold that the attack of the file does not.
    "audit.samples": _LARGER,
    "audit.steps": _LARGER,
    "audit.tuning_steps": _LARGER,
    "audit.lora_rank": _LARGER,
    "audit.policy": Direction("`block`", _later_of("disclose", "block")),
    "audit.thresholds.rank_one": _SMALLER,
    "audit.thresholds.ratios": _SMALLER,
    "audit.thresholds.collapse": _SMALLER,
    "audit.thresholds.least_squares": _SMALLER,
    "audit.thresholds.distillation": _SMALLER,
    "audit.thresholds.warm_distillation": _SMALLER,
    "audit.thresholds.fine_tuning": _SMALLER,
    "audit.thresholds.lora": _SMALLER,
    "evidence": Direction("a mark under the `key` of the file, with no smaller `strength`", _mark_kept),
    "publish.signing": Direction("having one", lambda file, run: file is None or run is not None),
    "publish.approval": _ON,
    "publish.private": Direction("`true`, then no value", _later_of(False, None, True)),
    "publish.gated": Direction("`manual`, then `auto`, then no value", _later_of(False, None, "auto", "manual")),
    "publish.review": _ON,
}
"""Every key that guards a release, with its direction."""


def at_least_as_tight(key: Guarded, file: Any, run: Any) -> bool:
    """Whether the value of a run is at least as tight as the value of the file. Both are as YAML has them.

    A value of the file that the schema refuses can be compared with nothing, so that no override passes for it.
    """
    try:
        return TIGHTER[key].rule(file, run)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
