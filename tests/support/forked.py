"""Work in a fork of the process of the tests, to be killed there: a new process would import for seconds first."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


def exit_code(work: Callable[..., object], *given: Any) -> int | None:
    """Do the work in a fork to its end; gives its exit code, or the negative number of the signal that ended it.

    A fork that hangs is ended by SIGTERM.
    """
    fork = multiprocessing.get_context("fork").Process(target=work, args=given)
    fork.start()
    fork.join(timeout=300)
    if fork.is_alive():
        fork.terminate()
        fork.join()
    return fork.exitcode
