"""A publish to break at one of its requests: the state before, what readers saw meanwhile, and what there is after."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taylor_ops.errors import WorkFailed
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import REPO, content_at, content_in, impatient, publish, watch
from tests.support.loopback_hub.store import Repository, Store

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
