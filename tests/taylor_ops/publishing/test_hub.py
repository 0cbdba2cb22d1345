"""A bundle is published on the Hub whole or not at all, for those who may see it, and a version never changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from pydantic import SecretStr

from taylor_ops.config.publish import Publish
from taylor_ops.errors import BadInput, GateRejected, ReleaseError, WorkFailed
from taylor_ops.publishing.hub import publish_to_hub
from taylor_ops.publishing.hub_fetch import Reference, fetch
from taylor_ops.storage.files import sha256_of_tree
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import (
    REPO,
    content_at,
    content_in,
    impatient,
    publish,
    write_bundle,
)
from tests.support.loopback_hub.faults import Fault
from tests.support.loopback_hub.server import READER, STRANGER, WRITER
from tests.support.loopback_hub.store import Account

VERSION = "1.0.0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", VERSION)


def refused(kind: type[ReleaseError], call: Callable[[], object]) -> ReleaseError:
    """The error of a publish, of two lines, that leads to no request of the client and holds no token."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert len(str(error).splitlines()) == 2
    assert error.__cause__ is None
    assert not any(token in repr(error) for token in (WRITER, READER, STRANGER))
    return error


# What a reader sees


def test_main_and_the_tag_show_the_bundle_and_nothing_else(hub: Hub, bundle: Path) -> None:
    (bundle.parent / "files").write_text("beside the bundle", encoding="utf-8")
    record = publish(bundle, VERSION)
    assert content_at(hub.store, "main") == content_at(hub.store, "v1.0.0") == content_in(bundle)
    assert set(hub.store.repositories[REPO].refs) == {"refs/heads/main", "refs/tags/v1.0.0"}
    assert (record.target, record.repo_id, record.version, record.unchanged) == ("hub", REPO, VERSION, False)
    assert record.commit == hub.store.repositories[REPO].refs["refs/tags/v1.0.0"]
    assert record.path == f"{hub.endpoint}/{REPO}/tree/v1.0.0"


def test_a_file_that_is_not_listed_is_not_sent(hub: Hub, bundle: Path) -> None:
    files, content = sha256_of_tree(bundle), content_in(bundle)
    (bundle / "secret.txt").write_text("not part of the bundle", encoding="utf-8")
    where = Publish(target="hub", repo_id=REPO)
    publish_to_hub(where, bundle, files, VERSION, None, lambda _done, _total: None, impatient())
    assert content_at(hub.store, "main") == content


def test_a_file_that_is_not_as_it_was_listed_is_not_sent(hub: Hub, bundle: Path) -> None:
    files = sha256_of_tree(bundle)
    (bundle / "config.json").write_text("{ }", encoding="utf-8")
    where = Publish(target="hub", repo_id=REPO)
    error = refused(WorkFailed, lambda: publish_to_hub(where, bundle, files, VERSION, None, print, impatient()))
    assert "config.json has changed since it was assembled" in error.cause
    assert hub.faults.seen == []


def test_files_that_the_next_version_does_not_have_are_gone_from_main_and_stay_in_the_tag(
    hub: Hub, bundle: Path, tmp_path: Path
) -> None:
    publish(bundle, VERSION)
    following = write_bundle(tmp_path / "next", "1.1.0")
    publish(following, "1.1.0")
    assert content_at(hub.store, "main") == content_at(hub.store, "v1.1.0") == content_in(following)
    assert content_at(hub.store, "v1.0.0") == content_in(bundle)


def test_every_file_is_verified_before_main_shows_any(hub: Hub, bundle: Path) -> None:
    def spoil(kind: str) -> None:
        repository = hub.store.repositories.get(REPO)
        staged = [ref for ref in repository.refs if "staging" in ref] if repository else []
        if kind == "commit" and repository and staged:
            head = repository.at(staged[0])
            spoiled = dict(head.files) | {"config.json": hub.store.small(b"other")}
            repository.refs[staged[0]] = repository.add(head, "spoiled", spoiled).oid

    hub.after_each = spoil
    assert "config.json arrived" in refused(WorkFailed, lambda: publish(bundle, VERSION)).cause
    assert content_at(hub.store, "main") == {}


# The same version again


def test_the_same_bytes_again_send_nothing_and_say_so(hub: Hub, bundle: Path) -> None:
    first = publish(bundle, VERSION)
    hub.faults.clear()
    assert publish(bundle, VERSION) == first.model_copy(update={"unchanged": True})
    assert not {"commit", "lfs_put", "preupload", "tag", "branch"} & set(hub.faults.seen)


@pytest.mark.parametrize("dies", ["never", "tag"])
def test_other_bytes_under_a_version_that_was_shown_are_refused(
    hub: Hub, bundle: Path, tmp_path: Path, dies: str
) -> None:
    if dies == "tag":
        hub.faults.order(Fault("before", kind="tag"))
        refused(WorkFailed, lambda: publish(bundle, VERSION, impatient(budget=0)))
    else:
        publish(bundle, VERSION)
    other = write_bundle(tmp_path / "other", VERSION, seed=1)
    error = refused(GateRejected, lambda: publish(other, VERSION))
    assert f"{REPO} {VERSION} is published already, with other bytes" in error.cause
    assert "raise `version`" in error.remedy
    assert content_at(hub.store, "main") == content_in(bundle)


def test_a_rerun_sends_only_what_is_missing(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    large = {path.name: path.stat().st_size for path in bundle.glob("*.safetensors")}
    hub.faults.order(Fault("before", kind="commit"))
    refused(WorkFailed, lambda: publish(bundle, VERSION, impatient(budget=0)))
    assert hub.faults.received == sum(large.values())
    hub.faults.clear()
    told: list[tuple[int, int]] = []
    where = Publish(target="hub", repo_id=REPO)
    publish_to_hub(
        where,
        bundle,
        sha256_of_tree(bundle),
        VERSION,
        None,
        lambda done, total: told.append((done, total)),
        impatient(),
    )
    assert hub.faults.received == 0
    total = sum(len(content) for content in content_in(bundle).values())
    assert told[-1] == (total, total)
    assert told == sorted(told)


# Two at once


@pytest.mark.parametrize("same", [True, False])
def test_of_two_that_publish_one_version_at_once_one_wins_and_the_other_changes_nothing(
    hub: Hub, bundle: Path, tmp_path: Path, same: bool
) -> None:
    other = bundle if same else write_bundle(tmp_path / "other", VERSION, seed=1)
    inside = threading.Event()

    def publish_too(kind: str) -> None:
        if kind == "paths_info" and not inside.is_set():
            inside.set()
            repository = hub.store.repositories[REPO]
            files = {name: hub.store.small(content) for name, content in content_in(other).items()}
            large = {name for name in files if name.endswith(".safetensors")}
            for name in large:
                sha256 = sha256_of_tree(other)[name]
                hub.store.object(sha256).write_bytes((other / name).read_bytes())
                files[name] = hub.store.large(sha256)
            files[".gitattributes"] = repository.at("main").files[".gitattributes"]
            repository.refs["refs/heads/main"] = repository.add(repository.at("main"), "Release v1.0.0", files).oid

    hub.after_each = publish_too
    if same:
        publish(bundle, VERSION)
    else:
        assert "another process changed `main`" in refused(WorkFailed, lambda: publish(bundle, VERSION)).cause
        hub.after_each = lambda _kind: None
        refused(GateRejected, lambda: publish(bundle, VERSION))
    assert content_at(hub.store, "main") == content_in(other)


# Who may see it, and who may publish


@pytest.mark.parametrize(
    ("token", "says"),
    [(READER, "needs the permission `repo.write` on org"), (STRANGER, "account stranger does not belong to org")],
)
def test_a_token_that_may_not_is_refused_before_anything_is_made(
    hub: Hub, bundle: Path, token: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert says in refused(BadInput, lambda: publish(bundle, VERSION)).cause
    assert hub.store.repositories == {}


def test_a_fine_grained_token_needs_write_on_the_owner(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = "hf_FineGrained000000000000000000"
    monkeypatch.setenv("HF_TOKEN", fine)
    monkeypatch.setitem(hub.accounts, fine, Account("writer", orgs=("org",), scopes=(("writer", "repo.write"),)))
    assert "`repo.write` on org" in refused(BadInput, lambda: publish(bundle, VERSION)).cause
    monkeypatch.setitem(hub.accounts, fine, Account("writer", orgs=("org",), scopes=(("org", "repo.write"),)))
    assert not publish(bundle, VERSION).unchanged


def test_no_token_at_all_is_said(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    error = refused(BadInput, lambda: publish(bundle, VERSION))
    assert "there is no token" in error.cause
    assert "HF_TOKEN" in error.remedy


def test_offline_is_honoured(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(BadInput, lambda: publish(bundle, VERSION)).cause
    assert hub.faults.seen == []


def test_a_given_token_is_used_and_shown_nowhere(
    hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    caplog.set_level(logging.DEBUG)
    where, token = Publish(target="hub", repo_id=REPO), SecretStr(WRITER)
    hub.faults.order(Fault("before", kind="lfs_put", times=3))
    record = publish_to_hub(where, bundle, sha256_of_tree(bundle), VERSION, token, lambda _d, _t: None, impatient())
    assert WRITER not in caplog.text + record.model_dump_json() + repr(where)
    assert hub.tokens_at_storage == 0


# What the Hub answers


@pytest.mark.parametrize("kind", ["whoami", "create_repo", "branch", "lfs_batch", "lfs_put", "commit", "tag"])
@pytest.mark.parametrize(
    ("status", "message", "error", "says"),
    [
        (401, "Invalid credentials in Authorization header", BadInput, "is not valid|may not"),
        (403, "Forbidden", BadInput, "needs `write` access to the repositories of org|needs permission to read"),
        (413, "Payload too large", WorkFailed, "storage of org is full"),
        (403, "Private storage limit reached", WorkFailed, "storage of org is full"),
    ],
)
def test_a_refusal_that_stays_is_not_tried_again(
    hub: Hub, bundle: Path, kind: str, status: int, message: str, error: type[ReleaseError], says: str
) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", kind=kind, status=status, message=message, times=99))
    with pytest.raises(error, match=says):
        publish(bundle, VERSION, impatient(waits=waits))
    assert waits == []


@pytest.mark.parametrize("status", [429, 503])
def test_the_hub_is_waited_for_as_long_as_it_asks(hub: Hub, bundle: Path, status: int) -> None:
    waits: list[float] = []
    answer = Fault("answer", kind="tag", status=status, headers={"Retry-After": "37"}, times=2)
    hub.faults.order(answer)
    publish(bundle, VERSION, impatient(budget=80, waits=waits))
    assert sum(waits) == pytest.approx(2 * 37)
    assert max(waits) <= 30  # then it is said again


def test_waits_grow_and_end_with_the_budget(hub: Hub, bundle: Path) -> None:
    waits: list[float] = []
    hub.faults.order(Fault("answer", kind="tag", status=502, times=999))
    error = refused(WorkFailed, lambda: publish(bundle, VERSION, impatient(budget=100, waits=waits)))
    assert "cannot make the tag v1.0.0: 502" in error.cause
    assert 100 - 60 < sum(waits) <= 100  # one more, of 60 seconds at most, would have passed the budget
    assert max(waits[:3]) < max(waits[3:]) <= 60


def test_signed_addresses_and_tokens_stay_out_of_errors(hub: Hub, bundle: Path) -> None:
    message = f"no access to https://store/x?signature=secret with {WRITER}"
    hub.faults.order(Fault("answer", kind="lfs_put", status=403, message=message, times=99))
    error = refused(BadInput, lambda: publish(bundle, VERSION))
    assert "signature" not in str(error)
    assert "https://store/x with ***" in error.cause


def test_a_hub_without_xet_is_named_with_its_remedy(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    error = refused(WorkFailed, lambda: publish(bundle, VERSION))
    assert "HF_HUB_DISABLE_XET=1" in error.remedy


def test_a_staging_branch_that_the_hub_only_says_to_have_removed_is_found(hub: Hub, bundle: Path) -> None:
    hub.faults.order(Fault("answer", kind="delete_branch", status=200, body=b"{}"))
    error = refused(WorkFailed, lambda: publish(bundle, VERSION))
    assert "says that it removed the branch staging/v1.0.0-" in error.cause
    assert publish(bundle, VERSION).unchanged
    assert not [ref for ref in hub.store.repositories[REPO].refs if "staging" in ref]


# Review


def test_a_release_for_review_waits_in_one_pull_request_and_is_tagged_once_it_is_merged(hub: Hub, bundle: Path) -> None:
    first = publish(bundle, VERSION, review=True)
    assert (first.pull_request, first.unchanged) == (1, False)
    assert first.path == f"{hub.endpoint}/{REPO}/discussions/1"
    assert content_at(hub.store, "main") == {}
    assert content_at(hub.store, "refs/pr/1") == content_in(bundle)
    assert publish(bundle, VERSION, review=True).unchanged
    repository = hub.store.repositories[REPO]
    assert list(repository.pulls) == [1]
    merged = repository.add(repository.at("main"), "merged by a person", repository.at("refs/pr/1").files)
    repository.refs["refs/heads/main"], repository.pulls[1].status = merged.oid, "merged"
    after = publish(bundle, VERSION, review=True)
    assert (after.pull_request, after.commit) == (None, merged.oid)
    assert content_at(hub.store, "v1.0.0") == content_in(bundle)


# What is fetched again


def test_what_is_fetched_is_what_was_published(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    publish(bundle, VERSION)
    fetch(Reference(REPO, "v1.0.0"), tmp_path / "fetched", patience=impatient())
    assert content_in(tmp_path / "fetched") == content_in(bundle)


@pytest.mark.parametrize("wrong", ["before", "cut", "lost"])
def test_a_download_that_breaks_is_gone_on_with(hub: Hub, bundle: Path, tmp_path: Path, wrong: str) -> None:
    publish(bundle, VERSION)
    for number in range(1, 12, 4):
        hub.faults.clear()
        hub.faults.order(Fault(wrong, after=number))  # type: ignore[arg-type]
        fetch(Reference(REPO, "v1.0.0"), tmp_path / str(number), patience=impatient())
        assert content_in(tmp_path / str(number)) == content_in(bundle)


def test_a_tag_that_is_not_there_and_a_repository_that_is_not_are_named(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    publish(bundle, VERSION)
    for where, says in (
        (Reference(REPO, "v9.9.9"), r"has no tag, branch or commit v9\.9\.9\nits tags are: v1\.0\.0$"),
        (Reference("org/none", "main"), "it does not exist, or this account does not see it"),
    ):
        with pytest.raises(ReleaseError, match=says):
            fetch(where, tmp_path / "fetched", patience=impatient())
