"""Faults that a test orders from the stand-in for the Hub: which requests, and what goes wrong with them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Wrong = Literal["before", "after", "lost", "cut", "stall", "answer"]
"""before: error 500, nothing was done. after: error 500, though it was done. lost: done, and no answer. cut: the
connection ends in the middle of what is sent. stall: silence until the client leaves. answer: one of `status`, with
`body` in place of the message if one is given."""


@dataclass
class Fault:
    """What goes wrong with `times` requests, those of the given kind or all, after the first `after` of them."""

    wrong: Wrong
    kind: str | None = None
    after: int = 0
    times: int = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "ordered"
    body: bytes | None = None


class Faults:
    """The faults that are ordered, and what became of every request. Requests are seen in the server's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[Fault] = []
        self.seen: list[str] = []
        self.injected: list[tuple[str, str]] = []
        self.received = 0

    def order(self, fault: Fault) -> None:
        """Let something go wrong from now on."""
        with self._lock:
            self._ordered.append(fault)

    def cancel(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._ordered.clear()

    def clear(self) -> None:
        """Nothing goes wrong any more, and no request was seen yet."""
        with self._lock:
            self._ordered.clear()
            self.seen.clear()
            self.injected.clear()
            self.received = 0

    def next(self, kind: str) -> Fault | None:
        """What goes wrong with this request."""
        with self._lock:
            self.seen.append(kind)
            for fault in self._ordered:
                if fault.kind not in (None, kind) or fault.times == 0:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                self.injected.append((kind, fault.wrong))
                return fault
        return None
