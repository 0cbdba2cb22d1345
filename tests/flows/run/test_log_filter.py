"""What the log of a run shows of an error."""

from __future__ import annotations

import logging

import pytest

from flows.run.log_filter import TRACEBACKS, _TwoLines
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


CRASH = "Crash detected! Execution was aborted by a termination signal."


def crashed(said: str = CRASH, **extra: str) -> logging.LogRecord:
    return logging.getLogger("prefect").makeRecord("prefect", logging.ERROR, "f", 1, said, (), None, extra=extra)


def test_a_run_of_a_worker_that_was_stopped_says_what_is_kept_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRACEBACKS, raising=False)
    record = crashed(flow_run_id="a-run")
    for _handler in range(2):
        assert _TwoLines().filter(record)
    kept, remedy = record.getMessage().splitlines()
    assert kept.startswith("stopped: every stage that was finished is kept")
    assert kept.endswith("(Execution was aborted by a termination signal)")
    assert remedy == "to go on: prefect flow-run retry a-run"
    of_a_task = crashed(flow_run_id="a-run", task_run_id="a-task")
    assert not any(_TwoLines().filter(of_a_task) for _handler in range(2))


def test_a_run_whose_command_says_that_it_was_stopped_says_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACEBACKS, "hide")
    for said in (CRASH, "Finished in state Crashed('Execution was aborted by a termination signal.')"):
        assert not _TwoLines().filter(crashed(said, flow_run_id="a-run"))
