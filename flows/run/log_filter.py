"""Keep tracebacks of expected errors out of Prefect's logs, where two lines say what to do, and secrets out of all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from taylor_ops.errors import ReleaseError, WorkFailed
from taylor_ops.masking import mask_logs, masked

_CRASH, _CRASHED = "Crash detected! ", "Finished in state Crashed("


class _TwoLines(logging.Filter):
    """Strips the traceback of a `ReleaseError` from a log record, or any traceback if a person watches the log.

    What Prefect says of a run that is stopped from outside becomes what is kept and the command that goes on. A person
    who watches the log reads that at its end instead.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        watched = os.environ.get(TRACEBACKS) == "hide"
        error = type(record.exc_info[1]) if record.exc_info else getattr(record, "masked_error", None)
        if error is not None and (watched or issubclass(error, ReleaseError)):
            record.exc_info = None
            record.exc_text = None
        said = record.getMessage()
        if not said.startswith((_CRASH, _CRASHED)):
            return True
        # Prefect says both of the task at work as well.
        if watched or hasattr(record, "task_run_id"):
            return False
        if said.startswith(_CRASH) and TRACEBACKS not in os.environ:
            # The same record comes to other handlers after this one.
            record.msg, record.args = _stopped(said.removeprefix(_CRASH), getattr(record, "flow_run_id", "RUN")), ()
        return True


def _stopped(why: str, run: str) -> str:
    return (
        f"stopped: every stage that was finished is kept, and so are the parts of the one at work ({why.rstrip('.')})\n"
        f"to go on: prefect flow-run retry {run}"
    )


TRACEBACKS = "TAYLOR_RELEASE_TRACEBACKS"
"""Environment variable: `hide` keeps every traceback out of the log, as the command line does without --debug."""

_FILTER = _TwoLines()


def without_tracebacks() -> None:
    """Attach the filter to every handler of Prefect, that of the terminal at the root included, and mask what is
    logged. Can be repeated."""
    mask_logs()
    names = ["prefect", *(name for name in logging.root.manager.loggerDict if name.startswith("prefect"))]
    for logger in (logging.root, *map(logging.getLogger, names)):
        for handler in logger.handlers:
            if type(handler).__module__.startswith("prefect") and _FILTER not in handler.filters:
                handler.addFilter(_FILTER)


@contextmanager
def secrets_kept() -> Iterator[None]:
    """Replace an unexpected error that holds a secret, because Prefect keeps the words of every error in its database.

    An expected error masks itself.
    """
    try:
        yield
    except ReleaseError:
        raise
    except Exception as error:
        said = masked(str(error))
        if said == str(error):
            raise
        raise WorkFailed(
            f"unexpected {type(error).__name__}: {said}", "run again; finished stages are reused"
        ) from None
