"""Files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taylor_ops.errors import WorkFailed

_CHUNK_BYTES = 8 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, keyed by its POSIX path relative to it, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def canonical_json(value: Any) -> str:
    """JSON text with sorted keys and a final newline: equal values give equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file that this project, or a model repository, wrote."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors_explained(path):
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
def folder_that_appears_whole(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on a clean exit it becomes `target`, on any error it is removed.

    What stood at `target` is replaced in one step. A folder left behind by a killed process is cleared first.
    """
    partial = target.parent / f".{target.name}.partial"
    with disk_errors_explained(target):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            if target.exists():
                shutil.rmtree(target)
            partial.replace(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def disk_errors_explained(target: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a read-only place into an error that says what there is and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        existing = next(parent for parent in [target, *target.parents] if parent.exists())
        free = shutil.disk_usage(existing).free
        raise WorkFailed(
            f"cannot write {target}: {os.strerror(error.errno)} ({free / 1e9:.2f} GB free)",
            "free some space or point --artifacts at another disk, then run again: finished stages are reused",
        ) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` hold the bytes of `source`: a hard link where the file system allows one, a copy elsewhere."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
