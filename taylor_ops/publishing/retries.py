"""Repeat requests to the Hub after errors that pass by themselves, at growing intervals and within a budget."""

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

    Args:
        budget: Seconds of all waits together.
        silence: Seconds without a byte after which a connection counts as dead.
        first: Seconds of the first wait, unless the Hub asks for another.
        longest: Seconds of the longest wait, unless the Hub asks for another.
        sleep: Waits for a number of seconds.
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
        """The result of `call`, repeated after errors that pass. Raises the last error when the budget is spent."""
        retrying = Retrying(
            retry=retry_if_exception(passes), wait=self._wait, stop=self._spent, sleep=self._pause, reraise=True
        )
        return retrying(call)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        requested = retry_after(error) if error else None
        if requested is not None:
            return requested
        # Random, so that clients that were turned away together do not come back together.
        return min(self._longest, self._first * 2.0 ** (state.attempt_number - 1)) * random.uniform(0.5, 1.0)

    def _spent(self, state: RetryCallState) -> bool:
        return self.waited + state.upcoming_sleep > self._budget

    def _pause(self, seconds: float) -> None:
        self.waited += seconds
        self._sleep(seconds)
