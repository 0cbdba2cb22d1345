"""A version is withdrawn: no tag leads to it, card and manifest say why, and `main` shows what it is asked to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.commands.main import app
from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.errors import BadInput, GateRejected, WorkFailed
from taylor_ops.publishing import withdraw
from taylor_ops.publishing.hub_fetch import Reference, fetch
from taylor_ops.publishing.withdraw import Yanked, yank
from taylor_ops.storage.files import sha256_of_tree
from taylor_ops.verification.verify import verify
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import (
    REPO,
    Content,
    content_at,
    content_in,
    impatient,
    publish,
    write_bundle,
)
from tests.support.loopback_hub.faults import Fault
from tests.support.loopback_hub.server import READER

WHY = "a layer was converted with the wrong range"


@pytest.fixture
def hub(hub: Hub, tmp_path: Path) -> Hub:
    """A Hub with two versions."""
    for version in ("1.0.0", "1.1.0"):
        publish(write_bundle(tmp_path / version, version), version)
    hub.faults.clear()
    return hub


def withdrawn(version: str = "1.1.0", rollback: bool = False, **more: Any) -> Yanked:
    return yank(REPO, version, WHY, rollback, patience=impatient(**more))


def refs(hub: Hub) -> set[str]:
    return set(hub.store.repositories[REPO].refs)


def says_so(content: Content) -> bool:
    """Whether card and manifest say why, and the metadata of the card still come first."""
    card, manifest = content["README.md"].decode(), json.loads(content[MANIFEST])
    return card.startswith("---\nlicense: mit\n---\n") and WHY in card and manifest["yanked"] == {"why": WHY}


def test_the_current_version_is_marked_on_main_and_loses_its_tag(hub: Hub, tmp_path: Path) -> None:
    assert withdrawn() == Yanked(repo_id=REPO, version="1.1.0", main_shows="1.1.0", unchanged=False)
    main, before = content_at(hub.store, "main"), content_in(tmp_path / "1.1.0")
    assert says_so(main)
    assert {name for name in main if main[name] != before[name]} == {"README.md", MANIFEST}
    assert "refs/tags/v1.1.0" not in refs(hub)
    assert content_at(hub.store, "v1.0.0") == content_in(tmp_path / "1.0.0")
    kept = content_at(hub.store, "withdrawn/v1.1.0")
    assert kept.keys() == {"README.md", MANIFEST}
    assert says_so(kept)


def test_a_rollback_shows_the_version_before_to_the_last_byte(hub: Hub, tmp_path: Path) -> None:
    assert withdrawn(rollback=True).main_shows == "1.0.0"
    assert content_at(hub.store, "main") == content_in(tmp_path / "1.0.0")
    assert refs(hub) == {"refs/heads/main", "refs/heads/withdrawn/v1.1.0", "refs/tags/v1.0.0"}


@pytest.mark.parametrize("rollback", [False, True])
def test_a_version_that_is_published_meanwhile_is_neither_marked_nor_rolled_back(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rollback: bool
) -> None:
    keep = withdraw._keep_the_notice

    def meanwhile(*given: Any) -> None:
        keep(*given)
        publish(write_bundle(tmp_path / "1.2.0", "1.2.0"), "1.2.0")

    with monkeypatch.context() as patched:
        patched.setattr(withdraw, "_keep_the_notice", meanwhile)
        with pytest.raises(WorkFailed, match=r"main shows 1\.2\.0 in place of 1\.1\.0"):
            withdrawn(rollback=rollback)
    assert content_at(hub.store, "main") == content_at(hub.store, "v1.2.0") == content_in(tmp_path / "1.2.0")
    assert withdrawn(rollback=rollback).main_shows == "1.2.0"
    assert content_at(hub.store, "main") == content_in(tmp_path / "1.2.0")
    assert "refs/tags/v1.1.0" not in refs(hub)


def test_an_older_version_is_withdrawn_without_a_change_to_main(hub: Hub, tmp_path: Path) -> None:
    assert withdrawn("1.0.0", rollback=True).main_shows == "1.1.0"
    assert content_at(hub.store, "main") == content_in(tmp_path / "1.1.0")
    assert "refs/tags/v1.0.0" not in refs(hub)


def test_withdrawing_again_changes_nothing_and_a_rollback_may_follow(hub: Hub, tmp_path: Path) -> None:
    withdrawn()
    before = dict(hub.store.repositories[REPO].refs)
    assert withdrawn().unchanged
    assert hub.store.repositories[REPO].refs == before
    assert withdrawn(rollback=True).main_shows == "1.0.0"
    assert content_at(hub.store, "main") == content_in(tmp_path / "1.0.0")


def test_a_withdrawn_number_is_not_used_again(hub: Hub, tmp_path: Path) -> None:
    withdrawn(rollback=True)
    for folder in (tmp_path / "1.1.0", write_bundle(tmp_path / "other", "1.1.0", seed=1)):
        with pytest.raises(GateRejected, match=r"1\.1\.0 was withdrawn"):
            publish(folder, "1.1.0")
    publish(write_bundle(tmp_path / "1.1.1", "1.1.1"), "1.1.1")
    assert content_at(hub.store, "main") == content_in(tmp_path / "1.1.1")


@pytest.mark.parametrize("kind", ["commit", "delete_tag"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_version_whose_withdrawal_was_cut_off_before_its_tag_was_gone_is_refused_as_withdrawn(
    hub: Hub, tmp_path: Path, kind: str, seed: int
) -> None:
    hub.faults.order(Fault("before", kind=kind))
    with pytest.raises(WorkFailed):
        withdrawn(budget=0)
    assert {"refs/heads/withdrawn/v1.1.0", "refs/tags/v1.1.0"} <= refs(hub)
    hub.faults.clear()
    before = dict(hub.store.repositories[REPO].refs)
    with pytest.raises(GateRejected, match=r"1\.1\.0 was withdrawn"):
        publish(write_bundle(tmp_path / "again", "1.1.0", seed=seed), "1.1.0")
    assert hub.store.repositories[REPO].refs == before
    assert not {"commit", "lfs_put", "preupload", "tag", "branch", "settings"} & set(hub.faults.seen)


def test_a_copy_of_a_withdrawn_version_does_not_verify(hub: Hub, tmp_path: Path) -> None:
    withdrawn()
    fetch(Reference(REPO, "main"), tmp_path / "copy", patience=impatient())
    with pytest.raises(GateRejected, match=WHY):
        verify(tmp_path / "copy")
    listed = json.loads((tmp_path / "copy" / MANIFEST).read_text(encoding="utf-8"))["files"]
    found = sha256_of_tree(tmp_path / "copy")
    assert {name: found[name] for name in listed} == listed


@pytest.mark.parametrize(
    ("version", "rollback", "says"),
    [("9.9.9", False, "has no version 9.9.9"), ("1.0.0", True, "no version before 1.0.0 to roll back to")],
)
def test_what_is_not_there_is_refused_and_nothing_is_changed(hub: Hub, version: str, rollback: bool, says: str) -> None:
    if rollback:
        withdrawn(rollback=True)
    before = dict(hub.store.repositories[REPO].refs)
    with pytest.raises(BadInput, match=says):
        withdrawn(version, rollback)
    assert hub.store.repositories[REPO].refs == before


def test_a_token_that_may_not_write_withdraws_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    before = refs(hub)
    with pytest.raises(BadInput, match=r"`repo\.write`"):
        withdrawn()
    assert refs(hub) == before


def test_a_reason_is_needed(hub: Hub) -> None:
    with pytest.raises(BadInput, match="no reason"):
        yank(REPO, "1.1.0", " \n", False)


@pytest.mark.parametrize("left", ["nothing", "strange"])
def test_a_main_without_a_release_is_told_as_such(hub: Hub, left: str, capsys: pytest.CaptureFixture[str]) -> None:
    repository = hub.store.repositories[REPO]
    files = {".gitattributes": repository.at("main").files[".gitattributes"]}
    if left == "strange":
        files[MANIFEST] = hub.store.small(b'{"version": 1.1, "files": {}}')
    repository.refs["refs/heads/main"] = repository.add(repository.at("main"), "changed by a person", files).oid
    app(["yank", REPO, "1.1.0", "--why", WHY], standalone_mode=False)
    assert capsys.readouterr().out == f"{REPO} 1.1.0 is withdrawn; main shows no release\n"
    assert "refs/tags/v1.1.0" not in refs(hub)


def test_a_version_whose_manifest_lists_no_files_is_named(hub: Hub) -> None:
    repository = hub.store.repositories[REPO]
    files = dict(repository.at("v1.1.0").files) | {MANIFEST: hub.store.small(b'{"version": "1.1.0"}')}
    repository.refs["refs/tags/v1.1.0"] = repository.add(repository.at("v1.1.0"), "spoiled", files).oid
    with pytest.raises(WorkFailed, match=r"taylor_release\.json at \w+ is no manifest"):
        withdrawn()


@pytest.mark.parametrize("kind", ["branch", "commit", "delete_tag"])
def test_after_an_answer_that_was_lost_a_rerun_completes(hub: Hub, kind: str, tmp_path: Path) -> None:
    hub.faults.order(Fault("lost", kind=kind))
    with pytest.raises(WorkFailed):
        withdrawn(rollback=True, budget=0)
    hub.faults.clear()
    withdrawn(rollback=True)
    assert content_at(hub.store, "main") == content_in(tmp_path / "1.0.0")
    assert refs(hub) == {"refs/heads/main", "refs/heads/withdrawn/v1.1.0", "refs/tags/v1.0.0"}


def test_a_tag_that_the_hub_only_says_to_have_removed_is_found(hub: Hub) -> None:
    hub.faults.order(Fault("answer", kind="delete_tag", status=200, body=b"{}"))
    with pytest.raises(WorkFailed, match=r"says that it removed the tag v1\.1\.0, and still has it"):
        withdrawn()
    assert "refs/tags/v1.1.0" in refs(hub)
    withdrawn()
    assert "refs/tags/v1.1.0" not in refs(hub)


def test_staging_branches_of_a_withdrawn_version_go_and_those_of_others_stay(hub: Hub) -> None:
    repository = hub.store.repositories[REPO]
    mine, other = f"refs/heads/staging/v1.1.0-{'a' * 12}", f"refs/heads/staging/v1.1.0-rc1-{'a' * 12}"
    repository.refs |= dict.fromkeys((mine, other), repository.at("main").oid)
    hub.faults.order(Fault("answer", kind="delete_branch", status=200, body=b"{}"))
    with pytest.raises(WorkFailed, match=r"says that it removed the branch staging/v1\.1\.0-a+, and still has it"):
        withdrawn()
    assert not withdrawn().unchanged
    assert mine not in refs(hub)
    assert other in refs(hub)
    assert withdrawn().unchanged
