"""A publish of which one request goes wrong: a reader sees the old or the new release, and a rerun completes."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.injected.case import Answer, Answering, Case, of_call
from taylor_ops.errors import ReleaseError
from tests.support.loopback_hub.bench import REPO, SILENCE, client_on_loopback, impatient, publish, write_bundle
from tests.support.loopback_hub.faults import Fault
from tests.support.loopback_hub.scenario import PART_BYTES, SCENARIOS, TRIES_OF_THE_CLIENT, Scenario
from tests.support.loopback_hub.server import WRITER

_FOR_EVER = 10**6
_HUGE = "1000000000"
_BODIES = (b"[]", b"null", b'"text"', b"5", b"{}", b'{"a": 1}', b"[null]", b'[{"a": []}]', b'{"files": 3}')
_A_SCENARIO = 100
"""So many seeds in a row break the same publish."""


def _answered(status: int, **headers: str) -> Callable[[random.Random], Fault]:
    return lambda _draw: Fault("answer", status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def _another_form(draw: random.Random) -> Fault:
    return Fault("answer", status=200, body=draw.choice(_BODIES))


def _echoed(draw: random.Random) -> Fault:
    return Fault("answer", status=draw.choice((400, 403, 404, 418, 500)), message=f"the token {WRITER} cannot do this")


FAULTS: dict[str, Callable[[random.Random], Fault]] = {
    **{f"status {status}": _answered(status) for status in (401, 403, 404, 409, 412, 500, 502, 503)},
    "status 429": _answered(429),
    "status 429, Retry-After 0": _answered(429, Retry_After="0"),
    "status 429, Retry-After huge": _answered(429, Retry_After=_HUGE),
    "status 503, Retry-After 0": _answered(503, Retry_After="0"),
    "JSON of another form": _another_form,
    "token echoed": _echoed,
    "failed before": lambda _draw: Fault("before"),
    "failed after": lambda _draw: Fault("after"),
    "connection closed": lambda _draw: Fault("lost"),
    "body cut": lambda _draw: Fault("cut"),
    "no answer": lambda _draw: Fault("stall"),
}
KINDS = tuple(FAULTS)


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.lines.append(record.getMessage())


class Bench:
    """The publish that is being broken; another one is set up when the seeds come to it."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._name, self._open, self._sets = scratch, "", ExitStack(), 0
        self.heard = _Heard()
        logging.getLogger("taylor_ops").addHandler(self.heard)

    def scenario(self, name: str) -> Scenario:
        """The publish of this name, and the numbers of the requests that are broken in it."""
        if name != self._name:
            self.close()
            self._name, self._sets = name, self._sets + 1
            root, second = self._scratch / str(self._sets), "second" in name
            broken, where = SCENARIOS[name]
            hub = self._open.enter_context(client_on_loopback(root / "store", None if second else PART_BYTES))
            if second:
                publish(write_bundle(root / "old", "1.0.0"), "1.0.0")
            new = write_bundle(root / "new", "1.1.0")
            self._made = Scenario(hub, root / "before", new, "1.1.0", where, root / "now", broken)
            self._made.keep()
            self.requests = [number for number, _ in self._made.requests()]
            self.allowed = set(self._made.seen)
        return self._made

    def close(self) -> None:
        """Stop the stand-in for the Hub."""
        self._open.close()


@contextmanager
def answering(scratch: Path) -> Iterator[Answering]:
    """What breaks one request of a publish, and publishes once more."""
    bench = Bench(scratch)
    try:
        yield lambda case: _answer(bench, case)
    finally:
        bench.close()


def _answer(bench: Bench, case: Case) -> Answer:
    names = list(SCENARIOS)
    scenario = bench.scenario(names[case.seed // _A_SCENARIO % len(names)])
    draw = random.Random(case.seed)
    fault = FAULTS[case.kind](draw)
    fault.after = draw.choice(bench.requests)
    stalls = fault.wrong == "stall"
    fault.times = 1 if stalls else draw.choice((1, TRIES_OF_THE_CLIENT, _FOR_EVER))
    scenario.restore()
    bench.heard.lines.clear()
    scenario.hub.faults.order(fault)

    def broken() -> str:
        try:
            _publish(scenario, SILENCE if stalls else 5.0)
        except ReleaseError as error:
            bench.heard.lines.append(str(error))
            raise
        return "" if scenario.is_published() else "it says that it is published, and is not"

    first = of_call(broken, (REPO, "HF_ENDPOINT"), statuses=(1, 2))
    if first.verdict != "well":
        return first
    if not scenario.hub.faults.injected:
        return Answer("badly", first.done, "no request was broken")
    if any(WRITER in line for line in bench.heard.lines):
        return Answer("badly", first.done, "the token is said")
    scenario.hub.faults.clear()
    again = of_call(lambda: _published(scenario), (REPO,), statuses=())
    if again.verdict != "well":
        return Answer("wrong accept", first.done, f"the rerun: {again.why}")
    if not set(scenario.seen) <= bench.allowed:
        return Answer("wrong accept", first.done, "a part of a release was shown")
    return first


def _published(scenario: Scenario) -> str:
    _publish(scenario, 5.0)
    return "" if scenario.is_published() else "it ends without the whole release"


def _publish(scenario: Scenario, silence: float) -> Any:
    return publish(scenario.new, scenario.version, impatient(60, silence), **scenario.where)
