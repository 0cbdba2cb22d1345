"""The layout of the artifacts folder, whose names only this module spells out, and its locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from taylor_ops.errors import WorkFailed
from taylor_ops.storage.files import disk_errors_explained


@dataclass(frozen=True)
class Artifacts:
    """The artifacts folder: a folder for each release, and `hub`, into which releases are published."""

    root: Path

    @property
    def hub(self) -> Path:
        """The folder into which releases are published, by repository and version."""
        return self.root / "hub"

    def publication(self, repo_id: str, version: str) -> Path:
        """The folder into which a version is published."""
        return self.hub / repo_id / version

    def release(self, name: str) -> ReleaseFolder:
        """The folder of one release."""
        return ReleaseFolder(self.root / name)


@dataclass(frozen=True)
class ReleaseFolder:
    """The folder of one release: its stages, which all versions share, and a folder for each version."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the release."""
        return self.path.name

    @property
    def stages(self) -> Path:
        """The folder in which the stages work."""
        return self.path / "stages"

    def stage(self, name: str) -> Path:
        """The folder that one stage writes."""
        return self.stages / name

    def memory(self, name: str) -> Path:
        """The memory file of one finished stage."""
        return self.stages / f"{name}.json"

    def waiting_note(self, run: str) -> Path:
        """The note that a run waits for approval."""
        return self.stages / f"approve-{run}.waiting"

    def version(self, version: str) -> VersionFolder:
        """The folder of one version."""
        return VersionFolder(self.path / version)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of this release, because two runs of it in one folder would undo each other's work.

        Raises `WorkFailed` at once if another run holds it.
        """
        file_lock = _acquired(self.path / ".lock", wait=False)
        if file_lock is None:
            raise WorkFailed(
                f"another run of {self.name} is at work in {self.path}",
                "wait for it to end, or give this run another --artifacts folder",
            )
        with file_lock:
            yield


@dataclass(frozen=True)
class VersionFolder:
    """The folder of one version: its bundle, records and report."""

    path: Path

    @property
    def bundle(self) -> Path:
        """The bundle as it is published."""
        return self.path / "bundle"

    @property
    def record(self) -> Path:
        """The record of the finished release."""
        return self.path / "release.json"

    @property
    def report(self) -> Path:
        """The report of the finished release."""
        return self.path / "report.html"

    @property
    def published_note(self) -> Path:
        """The note of the publication, written before anything that may fail after it."""
        return self.path / "published.json"

    def measurements(self, stage: str) -> Path:
        """All that a stage measured."""
        return self.path / "measurements" / f"{stage}.json"


@contextmanager
def one_publisher(place: Path) -> Iterator[None]:
    """Hold the lock of a publication, so that two runs never publish to one place at once. The second run waits."""
    file_lock = _acquired(place.with_name(f".{place.name}.lock"), wait=True)
    assert file_lock is not None
    with file_lock:
        yield


def _acquired(file: Path, wait: bool) -> AbstractContextManager[object] | None:
    """Hold a lock until the context ends. If it is taken, wait for it or, without `wait`, return None."""
    # Whoever only reads the layout need not wait for it.
    from filelock import FileLock, Timeout

    with disk_errors_explained(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        # A lock that only consists of the existence of a file would outlive a killed process.
        try:
            return FileLock(file, fallback_to_soft=False).acquire(blocking=wait)
        except Timeout:
            return None
