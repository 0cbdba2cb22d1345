"""Files and folders appear whole or not at all, and equal contents have equal hashes and equal JSON."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.storage.files import (
    canonical_json,
    disk_errors_explained,
    folder_that_appears_whole,
    leave_page_cache,
    link_or_copy,
    read_json,
    require_free,
    sha256_of,
    sha256_of_all,
    sha256_of_tree,
    write_text,
)

Usage = namedtuple("Usage", ["total", "used", "free"])

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tests that run many times."""
    return tmp_path_factory.mktemp("scratch")


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def disk_error(number: int) -> OSError:
    """The error that the operating system raises for `number`."""
    return OSError(number, os.strerror(number))


def fails_with(error: BaseException) -> Any:
    """A function that takes anything and raises `error`."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    return fail


def begin_and_fail(target: Path, error: BaseException) -> None:
    """Write a file into what shall become `target`, then raise."""
    with folder_that_appears_whole(target) as partial:
        write_text(partial / "half.txt", "half")
        raise error


def with_the_keys_reversed(value: Any) -> Any:
    """An equal value whose mappings were filled in the opposite order."""
    if isinstance(value, dict):
        return {key: with_the_keys_reversed(value[key]) for key in reversed(value)}
    return [with_the_keys_reversed(item) for item in value] if isinstance(value, list) else value


# Hashes


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_the_hash_of_a_file_is_that_of_its_bytes(scratch: Path, data: bytes) -> None:
    path = scratch / "hashed"
    path.write_bytes(data)
    assert sha256_of(path) == hashlib.sha256(data).hexdigest()


def test_a_file_of_several_chunks_is_hashed_to_its_end(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 9
    (tmp_path / "large").write_bytes(data)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(data).hexdigest()


def test_the_bytes_of_a_tree_are_reported_as_they_are_read(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    for name, count in (("small", 1), ("large", 5), ("none", 0)):
        (tmp_path / name).write_bytes(b"x" * count)
    (tmp_path / "link").symlink_to("nowhere")
    assert list(sha256_of_tree(tmp_path, lambda *given: reported.append(given))) == ["large", "link", "none", "small"]
    assert reported == [(5, 6), (6, 6), (6, 6), (6, 6)]


def test_a_tree_is_hashed_by_relative_posix_path_with_hidden_files(tmp_path: Path) -> None:
    names = ["b/c/deep.txt", "a.txt", "b/.hidden", "b.txt"]
    for name in names:
        write_text(tmp_path / name, name)
    (tmp_path / "empty").mkdir()
    assert sha256_of_tree(tmp_path) == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


def test_hashes_come_in_the_order_of_their_files_whichever_was_read_first(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    paths = [tmp_path / str(number) for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * (1 << (20 - number)))
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    found = sha256_of_all([*paths, tmp_path / "broken"], lambda *step: told.append(step))
    assert found == [*map(sha256_of, paths), "not a file"]
    whole = sum(path.stat().st_size for path in paths)
    assert told == sorted(told)
    assert len(told) == 21
    assert told[-1] == (whole, whole)
    assert sha256_of_all([]) == []


# JSON


@settings(deadline=None)
@given(value=values)
def test_equal_values_have_equal_json_whatever_the_order_of_their_keys(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(with_the_keys_reversed(value)) == text
    assert json.loads(text) == value
    assert text.endswith("\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_does_not_have_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"figure": value})


def test_what_is_written_as_json_is_read_again(tmp_path: Path) -> None:
    document = {"größe": 1, "lines": "a\u2028b\n", "list": [1.5, None, True]}
    write_text(tmp_path / "one.json", canonical_json(document))
    assert read_json(tmp_path / "one.json") == document


# One file


@settings(deadline=None)
@given(text=st.text())
def test_a_written_text_stands_in_the_file_byte_for_byte(scratch: Path, text: str) -> None:
    path = scratch / "written"
    write_text(path, text)
    assert path.read_bytes() == text.encode("utf-8")


def test_a_text_is_written_into_folders_that_were_not_there_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    write_text(path, "new")
    assert contents(tmp_path) == {"a/b/note.txt": "new"}
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_text_that_cannot_be_encoded_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "note.txt", "new" * 100_000 + "\ud800")
    assert contents(tmp_path) == {"note.txt": "old"}


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_fills_while_a_text_is_written_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_text(tmp_path / "note.txt", "old")
    monkeypatch.setattr(step, fails_with(disk_error(errno.ENOSPC)))
    with pytest.raises(WorkFailed, match=r"note\.txt: No space left on device \(.* [GM]B free\)"):
        write_text(tmp_path / "note.txt", "new")
    assert contents(tmp_path) == {"note.txt": "old"}


def test_a_disk_too_full_for_the_folder_of_a_text_is_explained_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", fails_with(disk_error(errno.ENOSPC)))
    with pytest.raises(WorkFailed, match="No space left on device"):
        write_text(tmp_path / "folder" / "note.txt", "new")


def test_an_interrupt_while_a_text_is_written_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "note.txt", "old")
    monkeypatch.setattr(os, "fsync", fails_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "note.txt", "new")
    assert contents(tmp_path) == {"note.txt": "old"}


# A folder


def test_a_folder_is_not_there_before_the_block_ends_and_whole_afterwards(tmp_path: Path) -> None:
    target = tmp_path / "a" / "out"
    with folder_that_appears_whole(target) as partial:
        write_text(partial / "sub" / "file.txt", "new")
        assert not target.exists()
    assert contents(tmp_path) == {"a/out/sub/file.txt": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_new_folder_replaces_everything_of_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "old.txt", "old")
    with folder_that_appears_whole(tmp_path / "out") as partial:
        assert list(partial.iterdir()) == []
        write_text(partial / "new.txt", "new")
    assert contents(tmp_path) == {"out/new.txt": "new"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), BadInput("cause", "remedy"), SystemExit(1)])
def test_any_error_inside_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "out" / "old.txt", "old")
    with pytest.raises(type(error)) as caught:
        begin_and_fail(tmp_path / "out", error)
    assert caught.value is error
    assert contents(tmp_path) == {"out/old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_inside_leaves_no_folder_where_none_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        begin_and_fail(tmp_path / "out", ValueError("no"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_behind_is_cleared_first(tmp_path: Path) -> None:
    block = folder_that_appears_whole(tmp_path / "out")
    write_text(block.__enter__() / "half.txt", "half")
    left_behind = contents(tmp_path)
    assert list(left_behind.values()) == ["half"]  # as after a kill: the block was entered and never left
    with folder_that_appears_whole(tmp_path / "out") as partial:
        write_text(partial / "new.txt", "new")
    assert contents(tmp_path) == {"out/new.txt": "new"}


def test_a_disk_that_fills_inside_is_explained_and_leaves_the_old_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "old.txt", "old")
    with pytest.raises(WorkFailed, match="No space left") as caught:
        begin_and_fail(tmp_path / "out", disk_error(errno.ENOSPC))
    assert str(tmp_path / "out") in caught.value.cause
    assert contents(tmp_path) == {"out/old.txt": "old"}


def test_a_removal_of_the_old_folder_that_fails_midway_never_leaves_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.txt"):
        write_text(tmp_path / "out" / name, "old")
    remove = shutil.rmtree

    def remove_half(path: Path, ignore_errors: bool = False) -> None:
        if not (Path(path) / "b.txt").exists():
            remove(path, ignore_errors=ignore_errors)
            return
        (Path(path) / "a.txt").unlink()
        if not ignore_errors:
            raise disk_error(errno.EIO)

    monkeypatch.setattr(shutil, "rmtree", remove_half)
    # Whether the failure is worth an error depends on what stands at the target; that it stands whole does not.
    with suppress(OSError), folder_that_appears_whole(tmp_path / "out") as partial:
        write_text(partial / "new.txt", "new")
    assert contents(tmp_path / "out") in ({"a.txt": "old", "b.txt": "old"}, {"new.txt": "new"})


# Errors of the disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_is_named_with_the_reason_and_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Usage(9, 9, 1_234_000_000))
    target = tmp_path / "not" / "there" / "yet"
    with pytest.raises(WorkFailed) as caught, disk_errors_explained(target):
        raise disk_error(number)
    assert caught.value.cause == f"cannot write {target}: {os.strerror(number)} (1.23 GB free)"
    assert "--artifacts" in caught.value.remedy
    assert caught.value.exit_status == 1
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "(about 2.50 GB needed, 12.3 MB free)"),
        (errno.EDQUOT, "(about 2.50 GB needed, 12.3 MB free; the limit is a quota, not the disk)"),
    ],
)
def test_a_full_disk_is_explained_with_what_was_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(9, 9, 12_345_678))
    with pytest.raises(WorkFailed) as caught, folder_that_appears_whole(tmp_path / "target", 2_500_000_000):
        raise disk_error(number)
    assert caught.value.cause == f"cannot write {tmp_path / 'target'}: {os.strerror(number)} {cause}"
    assert ("quota" in caught.value.remedy) == (number == errno.EDQUOT)


def test_a_disk_with_too_little_room_is_refused_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(9, 9, 12_345_678))
    require_free(tmp_path, 12_345_678)
    with pytest.raises(WorkFailed, match=r"about 2\.50 GB are needed, 12\.3 MB are free"):
        require_free(tmp_path / "not" / "there", 2_500_000_000)


@pytest.mark.parametrize(
    "error", [disk_error(errno.ENOENT), disk_error(errno.EIO), BrokenPipeError(), ValueError("no"), KeyboardInterrupt()]
)
def test_any_other_error_comes_through_as_it_was(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, disk_errors_explained(tmp_path):
        raise error
    assert caught.value is error


def test_an_error_that_was_explained_inside_is_not_explained_again(tmp_path: Path) -> None:
    with (
        pytest.raises(WorkFailed, match=r"cannot write .*/inner:"),
        disk_errors_explained(tmp_path / "outer"),
        disk_errors_explained(tmp_path / "inner"),
    ):
        raise disk_error(errno.ENOSPC)


# Links


def test_a_link_takes_no_space_where_the_file_system_allows_one(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    link_or_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").samefile(tmp_path / "source")


def test_the_bytes_are_copied_where_the_file_system_allows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fails_with(disk_error(errno.EXDEV)))
    (tmp_path / "source").write_bytes(b"weights")
    link_or_copy(tmp_path / "source", tmp_path / "target")
    (tmp_path / "source").write_bytes(b"changed")
    assert (tmp_path / "target").read_bytes() == b"weights"


def test_a_source_that_is_not_there_is_an_error_and_makes_no_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "source", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_leaves_the_page_cache_is_on_the_disk_first_and_keeps_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    usual = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("fsync") or usual(descriptor))
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: asked.append(f"forget {given[1:]}"), raising=False)
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    leave_page_cache(path)
    assert asked == ["fsync", "forget (0, 0, 4)"]
    assert path.read_bytes() == b"weights"
