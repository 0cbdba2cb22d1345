"""Remove old runs and caches from the artifacts folder, but nothing that was published or that a run still needs."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from taylor_ops.errors import WorkFailed
from taylor_ops.releases.index import Run, release_folders, runs
from taylor_ops.releases.waiting import waiting
from taylor_ops.storage.artifacts import ReleaseFolder
from taylor_ops.storage.files import disk_errors_explained
from taylor_ops.storage.record import Record


class Cleaned(Record):
    """What was removed, or would be.

    Attributes:
        removed: Paths below the artifacts folder.
        bytes: Size of all of them.
        busy: Releases that were left alone, because a run is at work on them or waits for approval.
    """

    removed: tuple[str, ...]
    bytes: int
    busy: tuple[str, ...]


def clean(artifacts: Path, keep: int, only_say: bool = False) -> Cleaned:
    """Remove unpublished runs and the caches of releases, except for the newest ones.

    A release is left alone if a run has locked its folder or waits for an approval.

    Args:
        artifacts: The artifacts folder.
        keep: How many unpublished runs stay of each release. The caches of as many releases stay, those used last.
        only_say: Remove nothing, and only return what would be removed.
    """
    found = runs(artifacts)
    named = {run.name for run in found}
    places = [place for place in release_folders(artifacts) if place.name in named or place.stages.exists()]
    newest = sorted(places, key=_last_used, reverse=True)
    removed, busy, freed = [], [], 0
    for place in places:
        with ExitStack() as stack:
            try:
                stack.enter_context(place.lock())
            except WorkFailed:
                busy.append(place.name)
                continue
            if waiting(place):
                busy.append(place.name)
                continue
            going = _unpublished([run for run in found if run.name == place.name])[keep:]
            if place not in newest[:keep]:
                going += _caches(place)
            for path in going:
                freed += _bytes(path)
                removed.append(path.relative_to(artifacts).as_posix())
                if not only_say:
                    with disk_errors_explained(path):
                        shutil.rmtree(path)
    return Cleaned(removed=tuple(removed), bytes=freed, busy=tuple(busy))


def _unpublished(of_one_release: list[Run]) -> list[Path]:
    """Folders of the runs that were never published, newest first."""
    folders = [run.folder for run in of_one_release if not run.published]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _caches(place: ReleaseFolder) -> list[Path]:
    return [place.stages] if place.stages.is_dir() else []


def _last_used(place: ReleaseFolder) -> float:
    return max((path.stat().st_mtime for path in place.stages.glob(place.memory("*").name)), default=0.0)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
