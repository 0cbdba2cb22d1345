"""The layout of the artifacts folder: every name in it stands here alone. And its locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from taylor_ops.errors import WorkFailed
from taylor_ops.storage.files import disk_errors_explained


@dataclass(frozen=True)
class Artifacts:
    """The artifacts folder: a folder for each release, and `hub`, into which releases are published."""

    root: Path

    @property
    def hub(self) -> Path:
        """Below it, by repository and version, lies what was published into a folder."""
        return self.root / "hub"

    def publication(self, repo_id: str, version: str) -> Path:
        """Where a version is published."""
        return self.hub / repo_id / version

    def release(self, name: str) -> ReleaseFolder:
        """The folder of one release."""
        return ReleaseFolder(self.root / name)


@dataclass(frozen=True)
class ReleaseFolder:
    """The folder of one release: its stages, which versions share, and a folder for each version."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the release."""
        return self.path.name

    @property
    def stages(self) -> Path:
        """Where the stages work."""
        return self.path / "stages"

    def stage(self, name: str) -> Path:
        """What one stage writes."""
        return self.stages / name

    def memory(self, name: str) -> Path:
        """What is remembered of one finished stage."""
        return self.stages / f"{name}.json"

    def waiting_note(self, run: str) -> Path:
        """The note that a run waits for approval."""
        return self.stages / f"approve-{run}.waiting"

    def version(self, version: str) -> VersionFolder:
        """The folder of one version."""
        return VersionFolder(self.path / version)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of this release: two runs of it in one place would undo each other's work.

        Raises `WorkFailed` at once if another run holds it.
        """
        try:
            held = _acquired(self.path / ".lock", wait=False)
        except Timeout:
            raise WorkFailed(
                f"another run of {self.name} is at work in {self.path}",
                "wait for it to end, or give this run another --artifacts folder",
            ) from None
        with held:
            yield


@dataclass(frozen=True)
class VersionFolder:
    """The folder of one version: its bundle, and what is known of it."""

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
    """Hold the lock of a publication, so that two runs never publish into it at once; the second one waits."""
    with _acquired(place.with_name(f".{place.name}.lock"), wait=True):
        yield


def _acquired(file: Path, wait: bool) -> AbstractContextManager[object]:
    """Acquire a lock, which its process holds until the context ends; raises `Timeout` if it would have to wait."""
    with disk_errors_explained(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        # A lock that is the mere existence of a file would outlive a process that was killed.
        return FileLock(file, fallback_to_soft=False).acquire(blocking=wait)
