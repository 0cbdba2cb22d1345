"""A process reads a file once for its hash, as long as nothing says that the file changed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from taylor_ops.storage.files import sha256_of, sha256_of_tree


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was hashed, in a world in which every file was written long ago."""
    names: list[str] = []
    digest, now = hashlib.file_digest, time.time_ns

    def noted(stream: Any, kind: str) -> Any:
        names.append(Path(stream.name).name)
        return digest(stream, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3_600_000_000_000)
    return names


def test_a_file_that_stays_as_it_is_is_read_once_under_all_its_names(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to("a")
    assert len({sha256_of(tmp_path / name) for name in "abcabc"}) == 1
    assert set(sha256_of_tree(tmp_path).values()) == {hashlib.sha256(b"weights").hexdigest()}
    assert read == ["a"]


def test_a_file_that_was_touched_or_replaced_is_read_again(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    sha256_of(path)
    os.utime(path, ns=(0, 1))
    sha256_of(path)
    (tmp_path / "b").write_bytes(b"new")
    os.utime(tmp_path / "b", ns=(0, 1))
    (tmp_path / "b").replace(path)
    assert sha256_of(path) == hashlib.sha256(b"new").hexdigest()
    assert read == ["a", "a", "a"]


def test_a_file_that_changes_faster_than_its_times_is_read_each_time(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / "a").write_bytes(bytes([number]))
        assert sha256_of(tmp_path / "a") == hashlib.sha256(bytes([number])).hexdigest()
