"""A bundle is published whole or not at all, and a published version never changes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from taylor_ops.config.publish import Publish
from taylor_ops.errors import GateRejected, ReleaseError, WorkFailed
from taylor_ops.publishing.publish import publish
from taylor_ops.publishing.record import Published
from taylor_ops.storage.files import sha256_of_tree, write_text

REPO, VERSION = "owner/tiny-taylor", "1.0.0"
# New ones: a copy of this process would hold what other tests left in it.
PROCESSES = multiprocessing.get_context("spawn")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Something to publish."""
    for name in ("README.md", "config.json", "model-00001-of-00001.safetensors", "sub/notes.txt"):
        write_text(tmp_path / "bundle" / name, f"content of {name}")
    return tmp_path / "bundle"


def published(bundle: Path, version: str = VERSION, files: dict[str, str] | None = None) -> Published:
    """Publish with the hashes of what is on disk, or those given."""
    where, artifacts = Publish(repo_id=REPO), bundle.parent / "artifacts"
    return publish(where, bundle, files or sha256_of_tree(bundle), version, artifacts, None, lambda _done, _total: None)


def place_of(bundle: Path, version: str = VERSION) -> Path:
    return bundle.parent / "artifacts" / "hub" / "owner" / "tiny-taylor" / version


def nothing_is_published(bundle: Path) -> bool:
    """Whether there is neither a version nor a part of one."""
    return not any(path.is_dir() for path in place_of(bundle).parent.iterdir())


def copies_like(monkeypatch: pytest.MonkeyPatch, then: Callable[[Path], None], after: int = 2) -> None:
    """Make the copy number `after` do `then` with its target."""
    copy, done = shutil.copyfile, []

    def copyfile(source: Path, target: Path) -> Path:
        copy(source, target)
        done.append(target)
        if len(done) == after:
            then(Path(target))
        return target

    monkeypatch.setattr(shutil, "copyfile", copyfile)


def test_a_bundle_is_published_whole_under_its_repository_and_version(bundle: Path) -> None:
    record = published(bundle)
    assert record == Published(
        target="folder", repo_id=REPO, version=VERSION, path=f"hub/{REPO}/{VERSION}", unchanged=False
    )
    assert sha256_of_tree(bundle.parent / "artifacts" / record.path) == sha256_of_tree(bundle)


def test_what_is_published_is_a_copy_that_later_work_on_the_bundle_cannot_change(bundle: Path) -> None:
    published(bundle)
    (bundle / "README.md").write_text("changed in place", encoding="utf-8")
    assert (place_of(bundle) / "README.md").read_text(encoding="utf-8") == "content of README.md"


def test_the_same_bytes_again_change_nothing_and_say_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = published(bundle)
    before = {path: path.stat().st_mtime_ns for path in place_of(bundle).rglob("*")}
    copies_like(monkeypatch, lambda target: pytest.fail(f"{target} was written again"), after=1)
    assert published(bundle) == first.model_copy(update={"unchanged": True})
    assert {path: path.stat().st_mtime_ns for path in place_of(bundle).rglob("*")} == before


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_other_bytes_under_a_published_version_are_refused(bundle: Path, change: str) -> None:
    published(bundle)
    before = sha256_of_tree(place_of(bundle))
    match change:
        case "changed":
            write_text(bundle / "config.json", "other")
        case "added":
            write_text(bundle / "config.json.orig", "other")
        case "removed":
            (bundle / "config.json").unlink()
    with pytest.raises(GateRejected) as caught:
        published(bundle)
    assert f"{REPO} {VERSION} is published already, with other bytes (1 files differ" in caught.value.cause
    assert "config.json" in caught.value.cause
    assert "raise `version`" in caught.value.remedy
    assert sha256_of_tree(place_of(bundle)) == before


def test_another_version_is_published_beside_the_first(bundle: Path) -> None:
    published(bundle)
    before = sha256_of_tree(place_of(bundle))
    write_text(bundle / "config.json", "other")
    assert not published(bundle, "1.0.1").unchanged
    assert sha256_of_tree(place_of(bundle)) == before
    assert sha256_of_tree(place_of(bundle, "1.0.1")) == sha256_of_tree(bundle)


def test_a_file_that_is_not_listed_is_not_published(bundle: Path) -> None:
    files = sha256_of_tree(bundle)
    write_text(bundle / "secret.txt", "not part of the bundle")
    published(bundle, files=files)
    assert sha256_of_tree(place_of(bundle)) == files


def test_a_disk_that_fills_midway_leaves_nothing_published(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        copies_like(patch, full)
        with pytest.raises(WorkFailed, match="No space left on device"):
            published(bundle)
    assert nothing_is_published(bundle)
    assert not published(bundle).unchanged


def publish_and_die(bundle: Path) -> None:
    """Publish, and end midway as kill -9 ends a process: nothing is cleaned up."""
    with pytest.MonkeyPatch.context() as patch:
        copies_like(patch, lambda _target: os._exit(9))
        published(bundle)


def test_a_process_that_dies_midway_leaves_nothing_published(bundle: Path) -> None:
    child = PROCESSES.Process(target=publish_and_die, args=(bundle,))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert not place_of(bundle).exists()
    assert not published(bundle).unchanged
    assert sha256_of_tree(place_of(bundle)) == sha256_of_tree(bundle)


def test_bytes_that_a_copy_spoils_are_caught_before_anything_is_published(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies_like(monkeypatch, lambda target: target.write_bytes(target.read_bytes()[:-1] + b"?"))
    with pytest.raises(WorkFailed, match="differ from those of the bundle"):
        published(bundle)
    assert nothing_is_published(bundle)


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_a_bundle_that_is_not_as_it_was_listed_is_refused(bundle: Path, change: str) -> None:
    files = sha256_of_tree(bundle)
    if change == "changed":
        write_text(bundle / "config.json", "other")
    else:
        (bundle / "config.json").unlink()
    with pytest.raises(ReleaseError):
        published(bundle, files=files)
    assert nothing_is_published(bundle)


def publish_at_once(bundle: Path, barrier: Barrier, answers: Queue[bool]) -> None:
    """Wait for the other process, publish, and answer whether it was there before."""
    barrier.wait()
    answers.put(published(bundle).unchanged)


def test_two_processes_that_publish_one_version_at_once_publish_it_once(bundle: Path) -> None:
    for number in range(50):
        write_text(bundle / f"shard-{number}.bin", "x" * 20_000)
    barrier, answers = PROCESSES.Barrier(2), PROCESSES.Queue()
    children = [PROCESSES.Process(target=publish_at_once, args=(bundle, barrier, answers)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(answers.get() for _ in children) == [False, True]
    assert sha256_of_tree(place_of(bundle)) == sha256_of_tree(bundle)
