"""Files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taylor_ops.errors import WorkFailed
from taylor_ops.progress import Progress, silent

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Error numbers of a disk that accepts no more data."""

_MAKE_ROOM = "free some space or point --artifacts at another disk, then run again: finished stages are reused"


# Longer than the tick of any clock of a file system, so that a later change of a file changes its times.
_SETTLED_SECONDS = 2.0
_hashed: dict[tuple[int, ...], str] = {}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    A process reads a file once: its bytes are the same as long as device, inode, size, and the times of the last change
    of its bytes and of its entry are. A file that changed within the last seconds is read again the next time.
    """
    with path.open("rb") as stream:
        before = _state_of(stream.fileno())
        known = _hashed.get(before)
        if known is not None:
            return known
        settled = max(before[-2:]) < time.time_ns() - int(_SETTLED_SECONDS * 1e9)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if settled and _state_of(stream.fileno()) == before:
            _hashed[before] = sha256
        return sha256


def _state_of(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sha256_of_tree(folder: Path, progress: Progress = silent) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by the POSIX path of the file relative to `folder`, sorted.

    A link that leads to no file, a pipe or a device is listed too, with `not a file` as its hash. Every core reads a
    file.

    Args:
        folder: The folder.
        progress: Receives the bytes that were read, and all bytes.
    """
    paths = files_below(folder)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return dict(zip(names, sha256_of_all(paths, progress), strict=True))


def files_below(folder: Path) -> list[Path]:
    """Everything below `folder` but folders, sorted: files, pipes and the like, and links, also those to a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def kind_of(path: Path) -> str:
    """What stands at a path, in words that follow "is"."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link that leads nowhere" if path.is_symlink() else "nothing"
    if stat.S_ISDIR(mode):
        return "a link to a folder" if path.is_symlink() else "a folder"
    kinds = ((stat.S_ISREG, "a file"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((words for test, words in kinds if test(mode)), "a device")


def sha256_of_all(paths: Sequence[Path], progress: Progress = silent) -> list[str]:
    """SHA-256 of each file, with `not a file` for what is none. Every core reads a file.

    Args:
        paths: The files.
        progress: Receives the bytes that were read and the bytes of all files.
    """
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in paths}
    # A large file that is begun last would leave all cores but one without work.
    largest_first = sorted(sizes, key=lambda path: (-sizes[path], path))
    hashes: dict[Path, str] = {}
    done = 0
    readers = ThreadPoolExecutor(os.cpu_count())
    try:
        for path, sha256 in zip(largest_first, readers.map(_sha256_or_none, largest_first), strict=True):
            hashes[path] = sha256
            done += sizes[path]
            progress(done, sum(sizes.values()))
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
    return [hashes[path] for path in paths]


def _sha256_or_none(path: Path) -> str:
    return sha256_of(path) if path.is_file() else "not a file"


def canonical_json(value: Any) -> str:
    """JSON text with sorted keys and a final newline: equal values give equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ValueError` if it holds something else, `OSError` if it cannot be read.

    A pipe or a device is not read, which might never end.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"it is {kind_of(path)}, not a file")
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def write_text(path: Path, text: str) -> None:
    """Write `text` to a temporary file beside `path` and rename the file to `path`."""
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


@contextmanager
def folder_that_appears_whole(target: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which becomes `target` on a clean exit and is removed on any error.

    An old `target` is moved away before that and removed after it. What a killed process left behind is removed first.

    Args:
        target: The folder to write.
        needed: About how many bytes are written in all, or None if that is not known.
    """
    partial = target.parent / f".{target.name}.partial"
    replaced = target.parent / f".{target.name}.replaced"
    with disk_errors_explained(target, needed):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            shutil.rmtree(replaced, ignore_errors=True)
            if target.exists():
                target.replace(replaced)
            partial.replace(target)
            shutil.rmtree(replaced, ignore_errors=True)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def require_free(folder: Path, needed: int) -> None:
    """Raise `WorkFailed` if the disk of `folder` has fewer than `needed` bytes free, before hours of work are lost."""
    free = _free(folder)
    if free < needed:
        cause = f"cannot write {folder}: about {size(needed)} are needed, {size(free)} are free"
        raise WorkFailed(cause, _MAKE_ROOM)


def _free(place: Path) -> int:
    return shutil.disk_usage(next(parent for parent in [place, *place.parents] if parent.exists())).free


def size(amount: int) -> str:
    """Bytes in decimal megabytes or gigabytes."""
    return f"{amount / 1e9:.2f} GB" if amount >= 1e9 else f"{amount / 1e6:.1f} MB"


@contextmanager
def scratch_beside(target: Path) -> Iterator[str]:
    """Yield the path of a folder beside `target`, on the same file system, and remove the folder at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        yield scratch


@contextmanager
def disk_errors_explained(target: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a full disk, a quota or a read-only place into a `WorkFailed` that says what is free and what to do.

    Args:
        target: What is written.
        needed: About how many bytes are written in all, or None if that is not known.
    """
    try:
        yield
    except OSError as error:
        elsewhere = not str(error.filename or target).startswith(str(target.parent))
        if error.errno not in FULL_OR_CLOSED or (error.errno == errno.EACCES and elsewhere):
            raise
        space = f"{size(_free(target))} free"
        if needed is not None:
            space = f"about {size(needed)} needed, {space}"
        remedy = _MAKE_ROOM
        if error.errno == errno.EDQUOT:
            space, remedy = f"{space}; the limit is a quota, not the disk", f"have the quota raised, {_MAKE_ROOM}"
        raise WorkFailed(f"cannot write {target}: {os.strerror(error.errno)} ({space})", remedy) from error


def leave_page_cache(path: Path) -> None:
    """Write a file to the disk and let the system forget its pages, so that the next reader gets them from the disk.

    Pages that a process still maps stay. Does nothing where the system does not offer it.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source` if the file system allows one, or a copy if it does not."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
