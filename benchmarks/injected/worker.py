"""A process that answers cases, and is killed where it gives no answer in time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.injected.case import Answer, Case

_TO_BEGIN = 300.0


class Worker:
    """Answers the cases of one group in a process of its own, which is begun anew after each that hung or died.

    Args:
        room: Module of the group, with a context manager `answering(scratch)` that gives what answers a case.
        scratch: A folder of its own.
        limit: Seconds in which a case has to be answered.
    """

    def __init__(self, room: str, scratch: Path, limit: float) -> None:
        self._room, self._scratch, self._limit, self._begun = room, scratch, limit, 0
        self._begin()

    def _begin(self) -> None:
        self._begun += 1
        place = self._scratch / str(self._begun)
        place.mkdir(parents=True)
        # A process that is forked would share threads and connections with this one.
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._room, place, theirs))
        self._process.start()
        theirs.close()
        if not self._ours.poll(_TO_BEGIN) or self._received() != "ready":
            self.end()
            raise RuntimeError(f"{self._room} does not begin: {(place / 'log').read_text('utf-8', 'replace')[-2000:]}")

    def _received(self) -> object:
        try:
            return self._ours.recv()
        except (EOFError, ConnectionResetError):
            return None

    def ask(self, case: Case) -> Answer:
        """The answer to a case. One that does not come, or a process that dies of it, is a bad answer."""
        self._ours.send(case)
        found = self._received() if self._ours.poll(self._limit) else "hangs"
        if isinstance(found, Answer):
            return found
        self.end()
        status = self._process.exitcode
        self._begin()
        if found == "hangs":
            return Answer("badly", False, f"no answer in {self._limit:.0f} s")
        return Answer("badly", False, f"the process died of it, with {status}")

    def end(self) -> None:
        """Kill the process, with all that it started."""
        assert self._process.pid is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self._process.join()
        self._ours.close()


def _serve(room: str, scratch: Path, theirs: Connection) -> None:
    os.setsid()
    with (scratch / "log").open("w", encoding="utf-8") as log:
        # What libraries say on the way is no answer, and hides the table.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
        with import_module(room).answering(scratch) as answer:
            theirs.send("ready")
            while True:
                try:
                    case = theirs.recv()
                except EOFError:
                    return
                theirs.send(answer(case))
