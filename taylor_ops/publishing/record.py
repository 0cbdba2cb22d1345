"""The record of a publication, and the errors about it."""

from __future__ import annotations

from taylor_ops.errors import GateRejected, WorkFailed
from taylor_ops.storage.record import Record


class Published(Record):
    """Where a bundle was published.

    Attributes:
        target: `folder` or `hub`.
        repo_id: Repository, `owner/name`.
        version: Version of the release.
        path: Path below the artifacts folder, or the address on the Hub.
        unchanged: The same bytes were there before.
        commit: On the Hub, the commit that shows the bundle.
        pull_request: On the Hub, the number of the pull request that waits for review. Nothing is public before that.
    """

    target: str
    repo_id: str
    version: str
    path: str
    unchanged: bool
    commit: str | None = None
    pull_request: int | None = None


def other_bytes(repo_id: str, version: str, names: list[str]) -> GateRejected:
    """The refusal of a version that is published with other bytes; `names` are the files that differ."""
    return GateRejected(
        f"{repo_id} {version} is published already, with other bytes ({len(names)} files differ, first {names[0]})",
        "a published version never changes: raise `version` in the config",
    )


def does_not_verify(label: str, published: Published, cause: str) -> WorkFailed:
    """The error for a release that is published, but not as it was sent.

    Args:
        label: Name and version of the release.
        published: Where it was published.
        cause: What differs.
    """
    withdraw = f"taylor-release yank {published.repo_id} {published.version} --why REASON"
    if published.pull_request is not None:
        return WorkFailed(
            f"{label} is in pull request {published.pull_request} of {published.repo_id} and does not verify: {cause}",
            f"do not merge {published.path}; close it and run again",
        )
    if published.commit is None:
        withdraw = f"remove {published.path} below the artifacts folder"
    return WorkFailed(
        f"{label} is published and does not verify: {cause}",
        f"{withdraw}; then raise `version` in the config and release again",
    )
