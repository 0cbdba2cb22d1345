"""Show the progress of a stage, from time to time in the log and as a progress artifact on the server."""

from __future__ import annotations

import time
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

_SECONDS_BETWEEN_REPORTS = 5.0


class StageProgress:
    """Reports the work done and the total work. A stage that ends within seconds leaves no artifact."""

    def __init__(self, stage: str, label: str, key: str) -> None:
        self._stage, self._label, self._key = stage, label, key
        self._logger = get_run_logger()
        self._last = time.monotonic()
        self._artifact: UUID | None = None

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last < _SECONDS_BETWEEN_REPORTS:
            return
        self._last = time.monotonic()
        self._logger.info("%s: %d of %d", self._stage, done, total)
        self._show(100 * done / max(total, 1))

    def finish(self) -> None:
        """Show the stage as done, if it was shown at all."""
        if self._artifact is not None:
            self._show(100)

    def _show(self, percent: float) -> None:
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, self._key, f"{self._stage} {self._label}")
                assert isinstance(created, UUID)  # it would be a coroutine in an asynchronous caller
                self._artifact = created
            else:
                update_progress_artifact(self._artifact, percent)
        except httpx.HTTPError as error:
            # Hours of work must not fail because a restarting server cannot receive their progress.
            self._logger.warning("the progress of %s cannot be shown: %s", self._stage, error)
