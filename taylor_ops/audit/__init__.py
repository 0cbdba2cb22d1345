"""The audit: published attacks on TaylorMLP releases, run against a bundle before anyone else does.

Adding an attack is one module beside this one with a function of the type `Attack`, and one entry in `ATTACKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from taylor_ops.audit import rank_one
from taylor_ops.audit.result import AttackResult, Progress
from taylor_ops.records import Record

Attack = Callable[[Path, Path, Progress], AttackResult]

ATTACKS: dict[str, Attack] = {"rank_one": rank_one.attack}


class AuditRecord(Record):
    """The results of all attacks that were run; `skipped` when none was."""

    attacks: tuple[AttackResult, ...]
    skipped: bool


def audit(original: Path, bundle: Path, attacks: Sequence[str], progress: Progress) -> AuditRecord:
    """Run the named attacks on a bundle; the original only scores what they recover."""
    results = tuple(ATTACKS[name](bundle, original, progress) for name in attacks)
    return AuditRecord(attacks=results, skipped=not results)
