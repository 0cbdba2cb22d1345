"""Where a bundle was published: the record of it, and the errors that speak of it."""

from __future__ import annotations

from taylor_ops.errors import GateRejected, WorkFailed
from taylor_ops.storage.record import Record


class Published(Record):
    """Where a bundle was published.

    path: below the artifacts folder, or the address on the Hub. unchanged: the same bytes were there before. commit: on
    the Hub, the one that shows the bundle. pull_request: the one that waits for review; nothing is public before that.
    """

    target: str
    repo_id: str
    version: str
    path: str
    unchanged: bool
    commit: str | None = None
    pull_request: int | None = None


def other_bytes(repo_id: str, version: str, names: list[str]) -> GateRejected:
    """The refusal of a version that is there with other bytes. names: the files that differ."""
    return GateRejected(
        f"{repo_id} {version} is published already, with other bytes ({len(names)} files differ, first {names[0]})",
        "a published version never changes: raise `version` in the config",
    )


def does_not_verify(label: str, published: Published, cause: str) -> WorkFailed:
    """The error of a release that is out and not as it was sent. label: its name and version; cause: what differs."""
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
