"""Two releases beside each other, gate by gate."""

from __future__ import annotations

from pydantic import computed_field

from taylor_ops.releases.gates import facts, gates
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.record import Record

ABSENT = "none"


class Difference(Record):
    """How two releases answer one question.

    Attributes:
        what: The question: the name of a fact or of a gate.
        first: The answer of the first release.
        second: The answer of the second release.
        same: Whether both answers are the same.
    """

    what: str
    first: str
    second: str

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def same(self) -> bool:
        """Whether both answers are the same."""
        return self.first == self.second


def compare(first: ReleaseRecord, second: ReleaseRecord) -> tuple[Difference, ...]:
    """Compare facts, then what every gate required and found. A gate that one release lacks is `none` there."""
    firsts, seconds = _answers_of(first), _answers_of(second)
    return tuple(
        Difference(what=what, first=firsts.get(what, ABSENT), second=seconds.get(what, ABSENT))
        for what in {**firsts, **seconds}
    )


def _answers_of(record: ReleaseRecord) -> dict[str, str]:
    answers = dict(facts(record))
    for gate in gates(record):
        answers |= {gate.gate: gate.found, f"{gate.gate}, required": gate.required}
    return answers
