"""A group of `benchmarks.chaos` whose answers are known: one kind for each way in which a case can end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.injected.case import Answer, Answering, Case, of_call
from taylor_ops.errors import BadInput

KINDS = ("refused", "taken", "raises", "accepts", "dies", "hangs")


@contextmanager
def answering(scratch: Path) -> Iterator[Answering]:
    """What ends as the kind of the case says."""

    def answer(case: Case) -> Answer:
        def call() -> str:
            match case.kind:
                case "refused":
                    raise BadInput(f"{scratch} is spoilt", "fetch it again")
                case "raises":
                    raise KeyError("hidden_act")
                case "accepts":
                    return "transformers loads other values"
                case "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hangs":
                    signal.pause()
            return ""

        return of_call(call, (scratch,))

    yield answer
