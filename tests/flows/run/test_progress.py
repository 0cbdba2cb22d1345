"""What is shown of a stage while it works: on a terminal, in a log, and on the server. The clock is set by hand."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run
from rich.console import Console

from flows.run import progress
from flows.run.progress import StageProgress

pytestmark = pytest.mark.usefixtures("prefect_server")


class Clock:
    """Stands at `now` until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Stage = Callable[[StageProgress, Clock], None]


def shown(stage: Stage, calm: bool = True) -> dict[str, Artifact]:
    """Artifacts, by key, of a run whose stage reports as it is told. A calm one has no thread of its own."""

    @flow
    def run() -> UUID:
        clock = Clock()
        report = StageProgress("convert", "tiny 1.0.0", "tiny-convert", clock)
        if calm:
            stage(report, clock)
            report.__exit__(None)
        else:
            with report:
                stage(report, clock)
        return UUID(str(flow_run.id))

    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run()]))
        return {str(found.key): found for found in client.read_artifacts(artifact_filter=wanted)}


def long_stage(report: StageProgress, clock: Clock) -> None:
    for done in range(1, 5):
        clock.now = 20.0 * done
        report(done, 4)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What the server is told: percent and description."""
    told: list[tuple[float, str]] = []
    made, changed = progress.create_progress_artifact, progress.update_progress_artifact

    def create(percent: float, key: str, description: str) -> Any:
        told.append((percent, description))
        return made(percent, key, description)

    def update(artifact: UUID, percent: float, description: str) -> Any:
        told.append((percent, description))
        return changed(artifact, percent, description)

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "update_progress_artifact", update)
    return told


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the stage in the log."""
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("convert: ")]


def test_a_long_stage_says_in_log_and_artifact_what_is_done_and_what_is_left(
    said: list[tuple[float, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        artifact = shown(long_stage)["tiny-convert"]
    assert lines(caplog) == [
        "convert: 1 of 4",
        "convert: 2 of 4, about 40 s left",
        "convert: 3 of 4, about 20 s left",
        "convert: 4 of 4",
    ]
    assert said == [
        (25, "convert tiny 1.0.0: 1 of 4"),
        (50, "convert tiny 1.0.0: 2 of 4, about 40 s left"),
        (75, "convert tiny 1.0.0: 3 of 4, about 20 s left"),
        (100, "convert tiny 1.0.0: 4 of 4"),
        (100, "convert tiny 1.0.0"),
    ]
    assert artifact.type == "progress"
    assert float(str(artifact.data)) == 100


def test_the_log_of_a_stage_with_many_steps_is_sparse(caplog: pytest.LogCaptureFixture) -> None:
    def many(report: StageProgress, clock: Clock) -> None:
        for step in range(1, 301):
            clock.now = step / 10
            report(step, 300)

    with caplog.at_level(logging.INFO):
        shown(many)
    assert len(lines(caplog)) == 3


def test_a_step_that_lasts_is_shown_without_the_stage_saying_anything(
    said: list[tuple[float, str]], caplog: pytest.LogCaptureFixture
) -> None:
    def silent(report: StageProgress, clock: Clock) -> None:
        report(3, 12)
        for clock.now in range(1, 31):
            report.tick()

    with caplog.at_level(logging.INFO):
        shown(silent)
    assert lines(caplog) == ["convert: 3 of 12, 13 s on the next", "convert: 3 of 12, 26 s on the next"]
    assert said[1] == (25, "convert tiny 1.0.0: 3 of 12, 26 s on the next")


def test_a_short_stage_leaves_no_artifact(caplog: pytest.LogCaptureFixture) -> None:
    def short(report: StageProgress, clock: Clock) -> None:
        for step in range(4):
            clock.now = step
            report(step, 4)
            report.tick()

    with caplog.at_level(logging.INFO):
        assert shown(short) == {}
    assert lines(caplog) == []


def test_a_server_that_cannot_be_told_ends_no_stage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_given: Any) -> UUID:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(progress, "create_progress_artifact", away)
    with caplog.at_level(logging.WARNING):
        assert shown(long_stage) == {}
    assert "the progress of convert cannot be shown: refused" in caplog.text


def test_a_thread_ticks_in_the_run_of_its_stage_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, ticking = threading.Event(), []
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 0.001)
    usual = progress.create_progress_artifact

    def create(*given: Any) -> Any:
        ticking.append(threading.current_thread())
        found = usual(*given)
        seen.set()
        return found

    def silent(_report: StageProgress, clock: Clock) -> None:
        clock.now = 20.0
        assert seen.wait(60)

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    artifacts = shown(silent, calm=False)
    assert set(artifacts) == {"tiny-convert"}
    assert [(thread.daemon, thread.is_alive()) for thread in ticking] == [(True, False)]
    assert threading.main_thread() not in ticking


def test_a_stage_that_fails_ends_its_thread_and_is_not_shown_as_done(
    monkeypatch: pytest.MonkeyPatch, said: list[tuple[float, str]]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 1000.0)

    def fails(report: StageProgress, clock: Clock) -> None:
        clock.now = 20.0
        report(1, 4)
        assert "progress of convert" in [thread.name for thread in threading.enumerate()]
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        shown(fails, calm=False)
    assert said == [(25, "convert tiny 1.0.0: 1 of 4")]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress of convert"]


def test_on_a_terminal_one_line_moves_below_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = io.StringIO()
    handler = PrefectConsoleHandler(drawn)
    handler.console = Console(file=drawn, force_terminal=True, width=60)
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, handler])
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 1000.0)

    def talks(report: StageProgress, clock: Clock) -> None:
        for clock.now in (1.0, 1.1, 12.0):
            report(int(clock.now), 20)
        get_run_logger().warning("beside it")

    with caplog.at_level(logging.INFO):
        assert set(shown(talks, calm=False)) == {"tiny-convert"}
    assert lines(caplog) == []
    text = drawn.getvalue()
    # The second came too soon after the first.
    assert text.count("convert: 1 of 20") == 1
    assert text.index("convert: 1 of 20") < text.index("beside it") < text.rindex("convert: 12 of 20")
    erased = "\x1b[2K"
    assert text.rindex(erased) > text.rindex("convert: 12 of 20")


def test_a_log_that_is_no_terminal_has_no_moving_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [PrefectConsoleHandler(io.StringIO())])
    assert progress.terminal() is None
