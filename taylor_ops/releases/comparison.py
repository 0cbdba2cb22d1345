"""Two releases beside each other, gate by gate."""

from __future__ import annotations

from taylor_ops.releases.gates import facts, gates
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.record import Record

ABSENT = "none"


class Difference(Record):
    """What two releases say to one question. same: both say the same."""

    what: str
    first: str
    second: str

    @property
    def same(self) -> bool:
        """Whether both say the same."""
        return self.first == self.second


def compare(first: ReleaseRecord, second: ReleaseRecord) -> tuple[Difference, ...]:
    """Facts, then what every gate required and found; a gate that only one of them has is `none` in the other."""
    one, two = _said(first), _said(second)
    return tuple(
        Difference(what=what, first=one.get(what, ABSENT), second=two.get(what, ABSENT)) for what in {**one, **two}
    )


def _said(record: ReleaseRecord) -> dict[str, str]:
    said = dict(facts(record))
    for gate in gates(record):
        said |= {gate.gate: gate.found, f"{gate.gate}, required": gate.required}
    return said
