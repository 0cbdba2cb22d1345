"""What the artifacts folder holds of releases: all runs, which of them are published, when, and their records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.errors import BadInput
from taylor_ops.publishing.record import Published
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.artifacts import Artifacts, ReleaseFolder, VersionFolder
from taylor_ops.storage.files import kind_of, read_json
from taylor_ops.storage.record import Record


class _Publication(Record):
    """The note of a publication, written before anything that may fail after it."""

    published: Published
    at: datetime


@dataclass(frozen=True)
class Run:
    """One folder `<name>/<version>` below the artifacts folder."""

    name: str
    version: str
    folder: Path

    @property
    def published(self) -> bool:
        """Whether this version was published, as its record, its note or its published copy shows."""
        noted = self._files.record.is_file() or self._files.published_note.is_file()
        return noted or self._has_published_copy()

    @property
    def _files(self) -> VersionFolder:
        return VersionFolder(self.folder)

    def _has_published_copy(self) -> bool:
        try:
            repo_id = read_json(self._files.bundle / MANIFEST)["config"]["publish"]["repo_id"]
            return Artifacts(self.folder.parents[1]).publication(str(repo_id), self.version).exists()
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def record(self) -> ReleaseRecord:
        """The record of a finished release.

        Raises:
            BadInput: If there is no record, if it is damaged, or if another version of this software wrote it.
        """
        path = self._files.record
        label = f"{self.name}/{self.version}/{path.name}"
        if path.exists() and not path.is_file():
            # A pipe would be waited for, perhaps for ever.
            raise BadInput(f"{label} is {kind_of(path)}, not a file", f"remove {path}, then run the release again")
        try:
            return ReleaseRecord.read(path)
        except FileNotFoundError as error:
            raise BadInput(
                f"{self.name} {self.version} has no {path.name}: it was not finished",
                f"run it again; see {self.folder}",
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "json_invalid":
                raise self._damaged(label, first["msg"]) from error
            key = ".".join(map(str, first["loc"]))
            raise BadInput(
                f"{label} was written by another version of taylor-release: {key}: {first['msg']}",
                f"read {path} with that version, or run the release again: finished stages are reused",
            ) from error
        except OSError as error:
            raise self._damaged(label, error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise self._damaged(label, str(error)) from error

    def _damaged(self, label: str, how: str) -> BadInput:
        return BadInput(
            f"{label} is damaged: {how}",
            f"restore {self._files.record} from a copy, or run the release again: finished stages are reused",
        )


def runs(artifacts: Path) -> list[Run]:
    """Every run below `artifacts`, by name and then by version; an empty list if there is no such folder."""
    return [run for place in release_folders(artifacts) for run in runs_of(place)]


def runs_of(place: ReleaseFolder) -> list[Run]:
    """Every run of one release, by version. Raises `OSError` if its folder cannot be read."""
    folders = [path for path in place.path.iterdir() if path.is_dir() and path.name[0].isdigit()]
    found = [Run(place.name, folder.name, folder) for folder in folders]
    return sorted(found, key=lambda run: (_order(run.version), run.version))


def run_of(artifacts: Path, name: str, version: str) -> Run:
    """The run of one version. Raises `BadInput` if there is none, and lists the versions that exist."""
    existing = runs(artifacts)
    found = next((run for run in existing if (run.name, run.version) == (name, version)), None)
    if found is None:
        versions = ", ".join(run.version for run in existing if run.name == name)
        reason = f"of {name} there is {versions}" if versions else f"there is no {name} in {artifacts}"
        raise BadInput(
            f"{name} {version} was not released here: {reason}", "`taylor-release list` shows what was released"
        )
    return found


def note_published(folder: Path, published: Published) -> None:
    """Note in the run's folder that its bundle was published, and when. An unchanged publication keeps its time."""
    earlier = _publication(folder)
    if earlier is None or not published.unchanged:
        note = _Publication(published=published, at=datetime.now(UTC).replace(microsecond=0))
        note.write(VersionFolder(folder).published_note)


def published_at(folder: Path) -> datetime | None:
    """When the bundle of a run's folder was published, as `note_published` noted it; None without a note."""
    noted = _publication(folder)
    return noted.at if noted else None


def _publication(folder: Path) -> _Publication | None:
    try:
        return _Publication.read(VersionFolder(folder).published_note)
    except FileNotFoundError:
        return None


def release_folders(artifacts: Path) -> list[ReleaseFolder]:
    """The folder of every release below `artifacts`, by name; an empty list if there is no such folder."""
    if not artifacts.is_dir():
        return []
    hub = Artifacts(artifacts).hub
    return [ReleaseFolder(path) for path in sorted(artifacts.iterdir()) if path.is_dir() and path != hub]


def _order(version: str) -> tuple[bool, Version | str]:
    try:
        return (True, Version(version))
    except InvalidVersion:
        return (False, version)
