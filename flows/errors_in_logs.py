"""Keep tracebacks of expected errors out of Prefect's logs: what a person can act on is said in two lines."""

from __future__ import annotations

import logging

from taylor_ops.errors import ReleaseError


class _TwoLines(logging.Filter):
    """Strips the traceback of a `ReleaseError` from a log record, and leaves every other record as it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], ReleaseError):
            record.exc_info = None
            record.exc_text = None
        return True


_FILTER = _TwoLines()


def without_tracebacks() -> None:
    """Attach the filter to every handler of Prefect's loggers; calling it again changes nothing."""
    names = ["prefect", *(name for name in logging.root.manager.loggerDict if name.startswith("prefect"))]
    for name in names:
        for handler in logging.getLogger(name).handlers:
            if _FILTER not in handler.filters:
                handler.addFilter(_FILTER)
