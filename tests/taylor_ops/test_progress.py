"""A part of the work tells its progress as progress of the whole."""

from __future__ import annotations

from taylor_ops.progress import part_of


def test_a_part_moves_the_progress_of_the_whole_from_its_beginning_to_its_end() -> None:
    told: list[tuple[int, int]] = []
    part = part_of(lambda *step: told.append(step), 20, 30, 100)
    for done in range(4):
        part(done, 3)
    assert told == [(20, 100), (30, 100), (40, 100), (50, 100)]


def test_a_part_without_work_stays_at_its_beginning() -> None:
    told: list[tuple[int, int]] = []
    part_of(lambda *step: told.append(step), 20, 30, 100)(0, 0)
    assert told == [(20, 100)]
