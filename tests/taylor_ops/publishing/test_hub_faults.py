"""Every request of a publish is broken in turn: readers see the old release or the new one, and a rerun completes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

import pytest

from tests.support.loopback_hub.bench import (
    SILENCE,
    client_on_loopback,
    publish,
    write_bundle,
)
from tests.support.loopback_hub.faults import Fault, Wrong
from tests.support.loopback_hub.scenario import PART_BYTES, SCENARIOS, TRIES_OF_THE_CLIENT, Scenario

WRONGS = [wrong for wrong in get_args(Wrong) if wrong != "answer"]


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """A publish that goes well as long as nothing is ordered to go wrong."""
    root, second = tmp_path_factory.mktemp("faults"), "second" in request.param
    broken, where = SCENARIOS[request.param]
    with client_on_loopback(root / "store", None if second else PART_BYTES) as hub:
        if second:
            publish(write_bundle(root / "old", "1.0.0"), "1.0.0")
        new = write_bundle(root / "new", "1.1.0")
        made = Scenario(hub, root / "before", new, "1.1.0", where, root / "now", broken)
        made.keep()
        yield made


@pytest.mark.parametrize("wrong", WRONGS)
def test_whatever_breaks_a_reader_sees_old_or_new_and_a_rerun_completes(
    scenario: Scenario, wrong: Wrong, capsys: pytest.CaptureFixture[str]
) -> None:
    requests, injected, ended = scenario.requests(), Counter[str](), 0
    allowed = set(scenario.seen)
    assert len(allowed) == (1 if scenario.where.get("review") else 3)
    for number, kind in requests:
        scenario.restore()
        stalls = wrong == "stall"
        scenario.hub.faults.order(Fault(wrong, after=number, times=1 if stalls else TRIES_OF_THE_CLIENT))
        ended += not scenario.run(budget=60 if stalls else 0, silence=SILENCE if stalls else 5.0)
        assert scenario.hub.faults.injected, f"request {number}, {kind}, was not broken: {scenario.error}"
        injected.update(kind for kind, _ in scenario.hub.faults.injected)
        scenario.hub.faults.clear()
        assert scenario.run(budget=60), f"the rerun after {number}, {kind}: {scenario.error}"
        assert scenario.is_published(), f"after request {number}, {kind}"
        assert set(scenario.seen) <= allowed, f"a part of a release was shown at request {number}, {kind}"
    assert set(injected) >= {kind for _, kind in requests}
    with capsys.disabled():
        what = f"{injected.total()} faults ({wrong}) in {len(requests)} requests"
        print(f"\n{what} ended {ended} runs; every rerun completed")


def test_an_answer_that_is_lost_once_does_not_end_a_run(scenario: Scenario) -> None:
    for number, kind in scenario.requests():
        scenario.restore()
        scenario.hub.faults.order(Fault("lost", after=number))
        assert scenario.run(budget=60), f"request {number}, {kind}: {scenario.error}"
        assert scenario.is_published(), f"request {number}, {kind}"
