"""The record of where a bundle was published."""

from __future__ import annotations

from taylor_ops.records import Record


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
