"""Notes of runs that wait for approval: what they will go on with must stay."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.storage.files import write_text

_BEFORE, _AFTER = "approve-", ".waiting"


def note_that_it_waits(stages: Path, run: str, server: str) -> None:
    """Note that the run `run` of a `server` waits for an answer; what it will go on with must stay."""
    write_text(_note(stages, run), server)


def note_that_it_goes_on(stages: Path, run: str) -> None:
    """Take the note of this run away; those of others stay."""
    _note(stages, run).unlink(missing_ok=True)


def waits_on(stages: Path, run: str) -> str:
    """The server that its note names."""
    return _note(stages, run).read_text(encoding="utf-8")


def waiting(stages: Path) -> tuple[str, ...]:
    """The runs that wait for an answer and will need what is in `stages`, sorted."""
    notes = sorted(path.name for path in stages.glob(f"{_BEFORE}*{_AFTER}"))
    return tuple(name.removeprefix(_BEFORE).removesuffix(_AFTER) for name in notes)


def _note(stages: Path, run: str) -> Path:
    return stages / f"{_BEFORE}{run}{_AFTER}"
