"""One thing that the command `doctor` looks at, and how long that may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Literal

from taylor_ops.errors import ReleaseError
from taylor_ops.masking import masked, printable
from taylor_ops.storage.record import Record


class Probed(Record):
    """What `doctor` found of one thing.

    Attributes:
        what: The thing.
        state: `lacking` if no release works like this, `warning` if some do not or figures suffer, else `fine`.
        found: What was found, in words and without any secret.
        remedy: What to do about it. None if nothing has to be done.
    """

    what: str
    state: Literal["fine", "warning", "lacking"]
    found: str
    remedy: str | None = None


Probe = Callable[[], Probed]


def probed(what: str, probe: Probe, seconds: float) -> Probed:
    """The answer of a probe, or a warning if it fails, or gives none within so many seconds.

    A probe that gives no answer goes on in the background. It does not keep the process alive.
    """
    answers: SimpleQueue[Probed] = SimpleQueue()
    # With the settings of whoever asks, of which a thread has none.
    context = copy_context()
    threading.Thread(target=lambda: answers.put(context.run(_answer, what, probe)), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except Empty:
        remedy = "see what keeps it waiting, such as a network, a proxy or a disk that does not answer"
        return Probed(what=what, state="warning", found=f"no answer within {seconds:g} seconds", remedy=remedy)


def _answer(what: str, probe: Probe) -> Probed:
    try:
        found = probe()
    except ReleaseError as error:
        found = Probed(what=what, state="warning", found=error.cause, remedy=error.remedy)
    # What is broken here is what a person wants to know, whatever it is, and the other probes shall be asked too.
    except Exception as error:  # noqa: BLE001
        said = f"cannot be looked at: {type(error).__name__}: {error}"
        found = Probed(what=what, state="warning", found=said, remedy="mend what this error names")
    remedy = None if found.remedy is None else _said(found.remedy)
    return found.model_copy(update={"found": _said(found.found), "remedy": remedy})


def _said(text: str) -> str:
    return printable(masked(" ".join(text.split())))
