"""How far a stage is, in words: what is done of how much, how long the step at work lasts, and the time left."""

from __future__ import annotations

_LONG_STEP = 10.0
# More steps than this are bytes or the like, whose number says little to a person.
_COUNTABLE = 9999
_LEAST_BASIS = 5.0


class Pace:
    """What a stage has done so far, and how long that took. Times are seconds of one clock that never goes back."""

    def __init__(self, begun: float) -> None:
        self._begun = self._last = begun
        self._done = self._total = 0
        self._basis: tuple[float, int] | None = None

    def note(self, done: int, total: int, now: float) -> None:
        """Note that `done` of `total` steps are done at `now`."""
        # A resumed stage begins with steps that took no time, and another total counts other steps.
        if self._basis is None or total != self._total or done < self._done:
            self._basis = (now, done)
        if (done, total) != (self._done, self._total):
            self._last = now
        self._done, self._total = done, total

    @property
    def percent(self) -> float:
        """What is done, of 100."""
        return 100 * self._done / self._total if self._total else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the last step is done, or None before the steps so far say anything about that."""
        if self._basis is None:
            return None
        since, before = self._basis
        steps, spent = self._done - before, self._last - since
        ahead = self._total - self._done
        if steps < 1 or spent < _LEAST_BASIS or ahead < 1:
            return None
        each, waited = spent / steps, now - self._last
        if waited > each and ahead == 1:
            return None
        return each * (ahead - 1) + max(each - waited, 0.0)

    def words(self, now: float) -> str:
        """Such as `3 of 12, 45 s on the next, about 4 min left`."""
        waited = now - self._last
        if self._total == 0:
            return f"at work for {duration(waited)}"
        countable = self._total <= _COUNTABLE
        words = [f"{self._done} of {self._total}" if countable else f"{self.percent:.0f} %"]
        if waited >= _LONG_STEP:
            words.append(f"{duration(waited)} on the {'next' if self._done < self._total else 'end'}")
        left = self.seconds_left(now)
        if left is not None:
            words.append(f"about {duration(left)} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take: `45 s`, `4 min`, `2.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
