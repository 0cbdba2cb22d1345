"""Repeat requests to the Hub after errors that pass by themselves, at growing intervals and within a budget."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from taylor_ops.publishing.hub_errors import passes, retry_after, words_of

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_WORDS = 30.0


class Patience:
    """A budget of time without success for one piece of work on the Hub. It says what it waits for.

    Args:
        budget: Seconds of all waits and all requests that failed, together. Of a request that failed, at most `silence`
            count: what took longer was sent or received.
        silence: Seconds without a byte after which a connection counts as dead.
        first: Seconds of the first wait, unless the Hub asks for a longer one. The waits grow, and none is shorter.
        longest: Seconds of the longest wait, unless the Hub asks for a longer one.
        sleep: Waits for a number of seconds.
        clock: Seconds that have passed since any fixed time.
    """

    def __init__(
        self,
        budget: float = 900.0,
        silence: float = 60.0,
        first: float = 1.0,
        longest: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.silence = silence
        self.waited = 0.0
        self._budget, self._first, self._longest, self._sleep, self._clock = budget, first, longest, sleep, clock
        self._words, self._since_words = "", _SECONDS_BETWEEN_WORDS

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call`, repeated after errors that pass. Raises the last error when the budget is spent."""
        retrying = Retrying(
            retry=retry_if_exception(passes),
            wait=self._wait,
            stop=self._spent,
            sleep=self._pause,
            reraise=True,
        )
        result: T = retrying(self._counted, call)
        return result

    def asks_again(self, host: str) -> None:
        """Say that a request got no answer and is made again by the client itself, after seconds without a word."""
        if self._since_words >= _SECONDS_BETWEEN_WORDS:
            self._since_words = 0.0
            _LOG.warning("waiting for the Hub: %s does not answer and is asked again", host)

    def _counted(self, call: Callable[[], T]) -> T:
        began = self._clock()
        try:
            return call()
        except Exception:
            lasted = min(self._clock() - began, self.silence)
            self.waited += lasted
            self._since_words += lasted
            raise

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        requested = 0.0
        if error is not None:
            self._words, requested = words_of(error), retry_after(error) or 0.0
        # Random, so that clients that were turned away together do not come back together.
        grown = min(self._longest, self._first * 2.0 ** min(state.attempt_number - 1, 32)) * random.uniform(0.5, 1.0)
        return max(requested, grown)

    def _spent(self, state: RetryCallState) -> bool:
        return self.waited + state.upcoming_sleep > self._budget

    def _pause(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            if self._since_words >= _SECONDS_BETWEEN_WORDS:
                self._since_words = 0.0
                _LOG.warning(
                    "waiting for the Hub (%s): the next try is in %.0f s; %.0f of %.0f s of patience are spent",
                    self._words,
                    left,
                    self.waited,
                    self._budget,
                )
            part = min(left, _SECONDS_BETWEEN_WORDS - self._since_words)
            self._sleep(part)
            self.waited += part
            self._since_words += part
            left -= part
