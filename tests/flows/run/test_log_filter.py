"""What the log of a run shows of an error."""

from __future__ import annotations

import logging

from flows.run.log_filter import _TwoLines
from taylor_ops.errors import BadInput
from taylor_ops.masking import mask_logs, note_secret


def test_the_traceback_of_an_expected_error_is_left_out_even_if_it_held_a_secret() -> None:
    note_secret("correct-horse")
    usual = logging.getLogRecordFactory()
    mask_logs()
    try:
        raise BadInput("no rights", "ask for them") from RuntimeError("correct-horse")
    except BadInput as error:
        raised = BadInput, error, error.__traceback__
        record = logging.getLogger("prefect").makeRecord("prefect", logging.ERROR, "f", 1, "stopped", (), raised)
    finally:
        logging.setLogRecordFactory(usual)
    assert "RuntimeError: ***" in str(record.exc_text)
    assert _TwoLines().filter(record)
    assert record.exc_text is None
