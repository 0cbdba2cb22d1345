"""Publish a bundle into a folder or on the Hub, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import SecretStr

from taylor_ops.config.publish import Publish
from taylor_ops.errors import WorkFailed
from taylor_ops.progress import Progress, silent
from taylor_ops.publishing.hub import publish_to_hub
from taylor_ops.publishing.hub_repository import repository_on_the_hub
from taylor_ops.publishing.record import Published, other_bytes
from taylor_ops.storage.artifacts import Artifacts, one_publisher
from taylor_ops.storage.files import folder_that_appears_whole, sha256_of_tree


def publish_to_folder(
    bundle: Path, files: dict[str, str], repo_id: str, version: str, artifacts: Path, progress: Progress = silent
) -> Published:
    """Publish into `hub/<repo_id>/<version>` below `artifacts`.

    A version that is published with the same bytes is left as it is.

    Args:
        bundle: Folder of the bundle.
        files: sha256 of every file of the bundle.
        repo_id: Repository, `owner/name`.
        version: Version of the release.
        artifacts: The artifacts folder.
        progress: Receives the bytes that were copied and those that were compared, and the number of all.

    Raises:
        GateRejected: The version is published with other bytes.
        WorkFailed: The copy differs from the bundle.
    """
    place = Artifacts(artifacts).publication(repo_id, version)
    with one_publisher(place):
        unchanged = place.exists()
        if unchanged:
            _refuse_other_bytes(place, files, repo_id, version, progress)
        else:
            _copy(bundle, files, place, progress)
    path = place.relative_to(artifacts).as_posix()
    return Published(target="folder", repo_id=repo_id, version=version, path=path, unchanged=unchanged)


def publish(
    where: Publish,
    bundle: Path,
    files: dict[str, str],
    version: str,
    artifacts: Path,
    token: SecretStr | None,
    progress: Progress,
) -> Published:
    """Publish to the target that a config names.

    Args:
        where: Section `publish` of the config.
        bundle: Folder of the bundle.
        files: sha256 of every file of the bundle.
        version: Version of the release.
        artifacts: The artifacts folder.
        token: Token for the Hub, if the config names a secret that holds it.
        progress: Receives the bytes that have arrived, and all bytes.
    """
    match where.target:
        case "folder":
            return publish_to_folder(bundle, files, where.repo_id, version, artifacts, progress)
        case "hub":
            return publish_to_hub(where, bundle, files, version, token, progress)


def require_access(where: Publish, token: SecretStr | None, redirected: bool = False) -> None:
    """Raise `BadInput` if a release could not be published there, hours before it is tried.

    Args:
        where: Section `publish` of the config.
        token: Token for the Hub, if the config names a secret that holds it.
        redirected: Whether the run chose the place. It may then be public only if the config says so.
    """
    if where.target == "hub":
        with repository_on_the_hub(where.repo_id, token) as repository:
            repository.require_writer()
            if redirected and where.private is None:
                repository.require_not_public()


def _refuse_other_bytes(place: Path, files: dict[str, str], repo_id: str, version: str, progress: Progress) -> None:
    stored = sha256_of_tree(place, progress)
    differing = sorted(name for name in stored.keys() | files.keys() if stored.get(name) != files.get(name))
    if differing:
        raise other_bytes(repo_id, version, differing)


def _copy(bundle: Path, files: dict[str, str], place: Path, progress: Progress) -> None:
    needed = sum(path.stat().st_size for path in map(bundle.joinpath, files) if path.is_file())
    with folder_that_appears_whole(place, needed) as partial:
        copied = 0
        for name in files:
            if not (bundle / name).is_file():
                raise WorkFailed(f"{bundle / name} is missing; nothing was published", "run again to assemble it anew")
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, target)
            copied += target.stat().st_size
            progress(copied, 2 * needed)
        if sha256_of_tree(partial, lambda compared, total: progress(total + compared, 2 * total)) != files:
            raise WorkFailed(
                f"the files written for {place} differ from those of the bundle; nothing was published",
                "check the disk, then run again",
            )
