"""Who approved a release, and why; and the note that keeps the work of a run that waits for an answer."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.files import write_text
from taylor_ops.records import Record


class Approval(Record):
    """One approval. by: who gave it, as they call themselves; comment: why."""

    by: str
    comment: str


def note_that_it_waits(stages: Path, run: str) -> None:
    """Note that the run `run` waits for an answer; what it will go on with must stay."""
    write_text(_note(stages), run)


def note_that_it_goes_on(stages: Path) -> None:
    """Take the note away."""
    _note(stages).unlink(missing_ok=True)


def waits(stages: Path) -> bool:
    """Whether a run waits for an answer and will need what is in `stages`."""
    return _note(stages).is_file()


def _note(stages: Path) -> Path:
    return stages / "approve.waiting"
