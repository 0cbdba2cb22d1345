"""Every request of a publish is broken in turn: readers see the old release or the new one, and a rerun completes."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from taylor_ops.errors import WorkFailed
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import (
    REPO,
    SILENCE,
    client_on_loopback,
    content_at,
    content_in,
    impatient,
    publish,
    watch,
    write_bundle,
)
from tests.support.loopback_hub.faults import Fault, Wrong
from tests.support.loopback_hub.store import Repository, Store

WRONGS = [wrong for wrong in get_args(Wrong) if wrong != "answer"]
PART_BYTES = 1_500
# The client itself makes some requests again, up to five times; what shall end a run has to go wrong six times.
TRIES_OF_THE_CLIENT = 6


@dataclass
class Scenario:
    """A publish to break: what is there before, and what is published.

    broken: kinds of its requests that are broken, or None for all. seen: every state that a reader saw.
    """

    hub: Hub
    before: Path
    new: Path
    version: str
    where: dict[str, Any]
    folder: Path
    broken: tuple[str, ...] | None
    seen: list[str] = field(default_factory=list)
    error: str = ""

    def restore(self) -> None:
        """Put the Hub back to the state before."""
        self.hub.faults.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.before, self.folder)
        self.hub.store = copy.deepcopy(self._kept)
        self.hub.store.folder = self.folder
        self.seen.clear()

    def keep(self) -> None:
        """Take the state of the Hub as the one before."""
        self._kept = copy.deepcopy(self.hub.store)
        shutil.copytree(self.hub.store.folder, self.before)
        watch(self.hub, self._see)

    def _see(self, _store: Store, repository: Repository) -> None:
        """Note what `main` and the tag show, by names and hashes."""
        for revision in ("main", f"v{self.version}"):
            if repository.ref_named(revision):
                files = repository.at(revision).files
                shown = {name: file.blob for name, file in files.items() if name != ".gitattributes"}
                self.seen.append(f"{revision.partition('v')[0] or 'tag'} {sorted(shown.items())}")

    def run(self, budget: float, silence: float = 5.0) -> bool:
        """Publish; whether that completed."""
        try:
            publish(self.new, self.version, impatient(budget, silence), **self.where)
        except WorkFailed as error:
            self.error = error.cause
            return False
        return True

    def is_published(self) -> bool:
        """Whether `main` and the tag show the new release, to the last byte, and nothing is left lying about.

        Where it is left for review, one pull request does.
        """
        repository = self.hub.store.repositories[REPO]
        branches = [ref for ref in repository.refs if ref.startswith("refs/heads/")]
        revisions = ["refs/pr/1"] if self.where.get("review") else ["main", f"v{self.version}"]
        shown = [content_at(self.hub.store, revision) for revision in revisions]
        opened = [pull.status for pull in repository.pulls.values()]
        return (
            all(content == content_in(self.new) for content in shown)
            and branches == ["refs/heads/main"]
            and opened == (["open"] if self.where.get("review") else [])
        )

    def requests(self) -> list[tuple[int, str]]:
        """Number and kind of the requests to break, of all that an undisturbed publish makes."""
        self.restore()
        assert self.run(budget=0), self.error
        assert self.is_published()
        seen = enumerate(self.hub.faults.seen)
        return [(number, kind) for number, kind in seen if self.broken is None or kind in self.broken]


SCENARIOS: dict[str, tuple[tuple[str, ...] | None, dict[str, Any]]] = {
    "a second version": (None, {}),
    "a first version, in parts": (
        ("create_repo", "settings", "lfs_part", "lfs_complete", "lfs_verify"),
        {"gated": "manual", "private": True},
    ),
    "a second version, for review": (
        ("discussions", "discuss", "discussion", "pull_status", "commit"),
        {"review": True},
    ),
}


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
