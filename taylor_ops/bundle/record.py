"""What the stages `approve` and `assemble` leave: their records."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Approval(Record):
    """The approval of a release.

    Attributes:
        by: Who gave it, by the name that this person entered.
        comment: The reason.
    """

    by: str
    comment: str


class BundleRecord(Record):
    """The assembled bundle.

    Attributes:
        folder: Its name below the folder of the run.
        bytes: Size of all files.
        files: sha256 of every file by name, the manifest included.
    """

    folder: str
    bytes: int
    files: dict[str, str]
