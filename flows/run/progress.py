"""Show how far a stage is: one moving line on a terminal, sparse lines in a log, a progress artifact on the server."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.run.pace import Pace

# A stage that reports often is shown from its own thread, between two steps, so that nothing disturbs what it times.
# Silence is broken by another thread, at the latest after the sum of the last two.
_SECONDS_BETWEEN_REPORTS = 10.0
_SECONDS_OF_SILENCE = 13.0
_SECONDS_BETWEEN_TICKS = 2.0
_SECONDS_BETWEEN_DRAWINGS = 0.5


class StageProgress:
    """Shows the work done and the total work. A stage that ends within seconds leaves neither line nor artifact.

    Inside its `with` block a stage that says nothing for 15 seconds is shown all the same.
    """

    def __init__(self, stage: str, label: str, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage, self._label, self._key, self._clock = stage, label, key, clock
        self._logger = get_run_logger()
        self._reported = self._drawn = clock()
        self._pace = Pace(self._reported)
        self._artifact: UUID | None = None
        self._at_report, self._ended = threading.Lock(), threading.Event()
        self._ticking: threading.Thread | None = None
        self._line: Live | None = None

    def __enter__(self) -> StageProgress:
        console = terminal()
        if console is not None:
            together = sys.stdout.isatty()
            self._line = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=together)
            self._line.start()
        # It needs the run of this thread to reach the artifacts of the run, and never keeps the process alive.
        self._ticking = threading.Thread(
            target=copy_context().run, args=(self._tick_until_the_end,), name=f"progress of {self._stage}", daemon=True
        )
        self._ticking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        self._ended.set()
        if self._ticking is not None:
            # After an error nobody waits for a server that may be gone with it.
            self._ticking.join(None if kind is None else _SECONDS_BETWEEN_TICKS)
        if self._line is not None:
            self._line.stop()
        if kind is None and self._artifact is not None:
            self._show(100, f"{self._stage} {self._label}")

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        self._pace.note(done, total, now)
        self._look(now, _SECONDS_BETWEEN_DRAWINGS, _SECONDS_BETWEEN_REPORTS)

    def tick(self) -> None:
        """Show how long the step at work lasts, if nothing was shown for long."""
        self._look(self._clock(), _SECONDS_BETWEEN_TICKS, _SECONDS_OF_SILENCE)

    def _tick_until_the_end(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_TICKS):
            self.tick()

    def _look(self, now: float, draw_after: float, report_after: float) -> None:
        # Whoever comes while the other thread shows something has nothing to add.
        if not self._at_report.acquire(blocking=False):
            return
        try:
            words = self._pace.words(now)
            if self._line is not None and now - self._drawn >= draw_after:
                self._drawn = now
                self._line.update(Text(f"{self._stage}: {words}", no_wrap=True, overflow="ellipsis"), refresh=True)
            if now - self._reported >= report_after:
                self._reported = now
                if self._line is None:
                    self._logger.info("%s: %s", self._stage, words)
                self._show(self._pace.percent, f"{self._stage} {self._label}: {words}")
        finally:
            self._at_report.release()

    def _show(self, percent: float, description: str) -> None:
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, self._key, description)
                assert isinstance(created, UUID)  # it would be a coroutine in an asynchronous caller
                self._artifact = created
            else:
                update_progress_artifact(self._artifact, percent, description)
        except httpx.HTTPError as error:
            # Hours of work must not fail because a restarting server cannot receive their progress.
            self._logger.warning("the progress of %s cannot be shown: %s", self._stage, error)


def terminal() -> Console | None:
    """The console to which Prefect logs, if that is a terminal. Lines of the log then appear above the moving line."""
    handlers = (handler for handler in logging.root.handlers if isinstance(handler, PrefectConsoleHandler))
    return next((handler.console for handler in handlers if handler.console.is_terminal), None)
