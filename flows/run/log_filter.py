"""Keep tracebacks of expected errors out of Prefect's logs, where two lines say what to do, and secrets out of all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from taylor_ops.errors import ReleaseError, WorkFailed
from taylor_ops.masking import mask_logs, masked


class _TwoLines(logging.Filter):
    """Strips the traceback of a `ReleaseError` from a log record, or any traceback if a person watches the log.

    For a person it also leaves out that a run crashed, which Prefect says of every run that is stopped by hand.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        watched = os.environ.get(TRACEBACKS) == "hide"
        error = type(record.exc_info[1]) if record.exc_info else getattr(record, "masked_error", None)
        if error is not None and (watched or issubclass(error, ReleaseError)):
            record.exc_info = None
            record.exc_text = None
        # Whoever stopped the run by hand reads at its end what is kept.
        return not (watched and record.getMessage().startswith("Crash detected!"))


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
