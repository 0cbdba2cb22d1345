"""How long the Hub is waited for: what passes by itself is tried again, more and more rarely, within a budget."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from taylor_ops.publishing.hub_errors import passes, retry_after

T = TypeVar("T")


class Patience:
    """A budget of waiting for one piece of work on the Hub.

    budget: seconds of all waits together. silence: seconds without a byte after which a connection counts as dead.
    first, longest: seconds of the first wait and of the longest, unless the Hub asks for another.
    """

    def __init__(
        self,
        budget: float = 900.0,
        silence: float = 60.0,
        first: float = 1.0,
        longest: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.silence = silence
        self.waited = 0.0
        self._budget, self._first, self._longest, self._sleep = budget, first, longest, sleep

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call`, made again after errors that pass; its last error where the budget is spent."""
        retrying = Retrying(
            retry=retry_if_exception(passes), wait=self._wait, stop=self._spent, sleep=self._pause, reraise=True
        )
        return retrying(call)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = retry_after(error) if error else None
        if asked is not None:
            return asked
        # Spread, so that those who were turned away together do not come back together.
        return min(self._longest, self._first * 2.0 ** (state.attempt_number - 1)) * random.uniform(0.5, 1.0)

    def _spent(self, state: RetryCallState) -> bool:
        return self.waited + state.upcoming_sleep > self._budget

    def _pause(self, seconds: float) -> None:
        self.waited += seconds
        self._sleep(seconds)
