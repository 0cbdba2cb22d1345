"""How far a stage is, in words: the time left is said only where the steps so far say something about it."""

from __future__ import annotations

import pytest

from flows.run.pace import Pace, duration


def test_before_the_first_step_only_the_time_at_work_is_known() -> None:
    pace = Pace(100.0)
    assert pace.words(116.0) == "at work for 16 s"
    assert pace.seconds_left(116.0) is None
    assert pace.percent == 0


def test_the_first_step_is_no_basis_because_a_resumed_stage_begins_with_what_it_kept() -> None:
    pace = Pace(0.0)
    pace.note(200, 240, 10.0)
    assert pace.words(11.0) == "200 of 240"
    pace.note(210, 240, 30.0)
    assert pace.seconds_left(30.0) == pytest.approx(60.0)
    assert pace.words(30.0) == "210 of 240, about 60 s left"


def test_few_seconds_of_work_are_no_basis() -> None:
    pace = Pace(0.0)
    pace.note(1, 100, 0.0)
    pace.note(2, 100, 4.0)
    assert pace.seconds_left(4.0) is None


def test_the_time_left_shrinks_while_a_step_lasts_but_not_below_the_steps_after_it() -> None:
    pace = Pace(0.0)
    pace.note(1, 5, 0.0)
    pace.note(2, 5, 20.0)
    assert [pace.seconds_left(now) for now in (20.0, 30.0, 40.0, 90.0)] == [60.0, 50.0, 40.0, 40.0]
    assert pace.words(90.0) == "2 of 5, 70 s on the next, about 40 s left"


def test_nothing_is_promised_of_a_last_step_that_takes_longer_than_those_before() -> None:
    pace = Pace(0.0)
    pace.note(10, 12, 0.0)
    pace.note(11, 12, 10.0)
    assert pace.seconds_left(15.0) == pytest.approx(5.0)
    assert pace.words(55.0) == "11 of 12, 45 s on the next"
    pace.note(12, 12, 60.0)
    assert pace.words(100.0) == "12 of 12, 40 s on the end"


def test_steps_of_another_kind_begin_a_new_basis() -> None:
    pace = Pace(0.0)
    pace.note(1, 3, 0.0)
    pace.note(2, 3, 50.0)
    assert pace.seconds_left(50.0) is not None
    for done, total in ((2, 40), (1, 40)):
        pace.note(done, total, 60.0)
        assert pace.seconds_left(60.0) is None


def test_a_step_that_is_reported_again_lasts_on() -> None:
    pace = Pace(0.0)
    pace.note(1, 3, 0.0)
    pace.note(1, 3, 20.0)
    assert pace.words(20.0) == "1 of 3, 20 s on the next"


def test_bytes_are_said_as_a_share() -> None:
    pace = Pace(0.0)
    pace.note(250_000_000, 1_000_000_000, 0.0)
    assert pace.words(1.0) == "25 %"
    assert pace.percent == 25


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5960, "99 min"), (9000, "2.5 h")]
)
def test_durations_have_the_unit_that_a_person_would_take(seconds: float, words: str) -> None:
    assert duration(seconds) == words
