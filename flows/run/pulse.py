"""The pulse of a run: events by which the server knows that its process is alive, and one when it falls silent."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from prefect.context import FlowRunContext
from prefect.events import Event, emit_event

ALIVE, SILENT = "release.alive", "release.silent"
SECONDS_BETWEEN_BEATS = 30


class Pulse:
    """Says every `SECONDS_BETWEEN_BEATS` that the flow run at work is alive, in a thread of its own.

    Prefect's own heartbeats come as often as each process happens to be set up for, and go on after a suspension. What
    the server sees of a pulse ends with `SILENT`, whatever it hears first.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._last: Event | None = None

    def __reduce__(self) -> tuple[type[Pulse], tuple[()]]:
        # Prefect makes a key of what a task is given, and a thread is of one process.
        return Pulse, ()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Say nothing while open, and nothing more if the block raises."""
        beat = self._thread is not None
        self._stop()
        yield
        if beat:
            self._start()

    def _start(self) -> None:
        self._stopped.clear()
        # The settings of this thread name the server; another would not know them, nor the flow run.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._beat,), name="pulse", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join()
        self._thread = None
        _told(SILENT, follows=self._last)

    def _beat(self) -> None:
        while True:
            # It follows no other: a server that was started meanwhile would wait for that one, which it never gets.
            self._last = _told(ALIVE)
            if self._stopped.wait(SECONDS_BETWEEN_BEATS):
                return


def _told(event: str, follows: Event | None = None) -> Event | None:
    """Emit an event of this flow run, which the server takes up after the one that it follows."""
    running = FlowRunContext.get()
    assert running is not None
    assert running.flow_run is not None
    return emit_event(
        event,
        resource={
            "prefect.resource.id": f"prefect.flow-run.{running.flow_run.id}",
            "prefect.resource.name": running.flow_run.name,
        },
        related=[
            {
                "prefect.resource.id": f"prefect.flow.{running.flow_run.flow_id}",
                "prefect.resource.role": "flow",
                "prefect.resource.name": running.flow.name if running.flow else "",
            }
        ],
        follows=follows,
    )
