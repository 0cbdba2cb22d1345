"""Who may see a repository on the Hub: set before a byte of weights goes up, and left alone by what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.errors import GateRejected
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import REPO, publish, write_bundle
from tests.taylor_ops.publishing.test_hub import VERSION, refused


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", VERSION)


@pytest.mark.parametrize(
    ("where", "private", "gated"),
    [({}, True, False), ({"private": False}, False, False), ({"private": False, "gated": "manual"}, False, "manual")],
)
def test_access_is_set_before_a_byte_of_weights_goes_up(
    hub: Hub, bundle: Path, where: dict[str, object], private: bool, gated: object
) -> None:
    seen: list[tuple[bool, object]] = []

    def look(kind: str) -> None:
        if kind in ("preupload", "lfs_put", "commit", "branch"):
            repository = hub.store.repositories[REPO]
            seen.append((repository.private, repository.gated))

    hub.after_each = look
    publish(bundle, VERSION, **where)
    assert set(seen) == {(private, gated)}


def test_access_that_a_config_does_not_speak_of_stays_as_it_is(hub: Hub, bundle: Path) -> None:
    hub.store.create(REPO, private=False, resource_group=None).gated = "auto"
    publish(bundle, VERSION)
    assert (hub.store.repositories[REPO].private, hub.store.repositories[REPO].gated) == (False, "auto")


def access(hub: Hub) -> tuple[bool, str | bool]:
    """Whether the repository is private and gated."""
    return hub.store.repositories[REPO].private, hub.store.repositories[REPO].gated


@pytest.mark.parametrize("why", ["tagged", "shown", "withdrawn"])
def test_a_release_that_is_refused_leaves_access_as_it_was(hub: Hub, bundle: Path, tmp_path: Path, why: str) -> None:
    publish(bundle, VERSION)
    repository = hub.store.repositories[REPO]
    if why == "shown":
        del repository.refs["refs/tags/v1.0.0"]
    if why == "withdrawn":
        repository.refs["refs/heads/withdrawn/v1.0.0"] = repository.refs.pop("refs/tags/v1.0.0")
    assert access(hub) == (True, False)
    other = write_bundle(tmp_path / "other", VERSION, seed=1)
    error = refused(GateRejected, lambda: publish(other, VERSION, private=False, gated="manual"))
    assert ("was withdrawn" if why == "withdrawn" else "with other bytes") in error.cause
    assert access(hub) == (True, False)


@pytest.mark.parametrize("review", [False, True])
def test_access_to_what_is_there_changes_before_a_byte_of_an_accepted_release_goes_up(
    hub: Hub, bundle: Path, tmp_path: Path, review: bool
) -> None:
    publish(bundle, VERSION, private=False)
    seen: dict[str, set[tuple[bool, str | bool]]] = {}
    hub.after_each = lambda kind: seen.setdefault(kind, set()).add(access(hub))
    following = write_bundle(tmp_path / "next", "1.1.0")
    publish(following, "1.1.0", private=True, gated="manual", review=review)
    sent = {kind: found for kind, found in seen.items() if kind in ("branch", "preupload", "lfs_put", "commit")}
    assert "lfs_put" in sent
    assert set().union(*sent.values()) == {(True, "manual")}


@pytest.mark.parametrize("tagged", [True, False])
def test_access_is_set_too_where_all_of_the_release_is_there(hub: Hub, bundle: Path, tagged: bool) -> None:
    publish(bundle, VERSION)
    if not tagged:
        del hub.store.repositories[REPO].refs["refs/tags/v1.0.0"]
    publish(bundle, VERSION, private=False, gated="manual")
    assert access(hub) == (False, "manual")
