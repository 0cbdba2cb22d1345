"""Notes of runs that wait for approval, which keep the stages that these runs will need."""

from __future__ import annotations

from taylor_ops.storage.artifacts import ReleaseFolder
from taylor_ops.storage.files import write_text


def note_that_it_waits(place: ReleaseFolder, run: str, server: str) -> None:
    """Note that the run `run` on `server` waits for an answer, so that the stages that it will need stay."""
    write_text(place.waiting_note(run), server)


def note_that_it_goes_on(place: ReleaseFolder, run: str) -> None:
    """Remove the note of this run. The notes of other runs stay."""
    place.waiting_note(run).unlink(missing_ok=True)


def waits_on(place: ReleaseFolder, run: str) -> str:
    """The server on which a run waits, as its note names it."""
    return place.waiting_note(run).read_text(encoding="utf-8")


def waiting(place: ReleaseFolder) -> tuple[str, ...]:
    """The runs that wait for an answer and will need the stages of this release, sorted."""
    pattern = place.waiting_note("*").name
    before, _, after = pattern.partition("*")
    notes = sorted(path.name for path in place.stages.glob(pattern))
    return tuple(name.removeprefix(before).removesuffix(after) for name in notes)
