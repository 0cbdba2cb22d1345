"""What the stages `approve` and `assemble` leave: their records."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Approval(Record):
    """One approval. by: who gave it, as they call themselves; comment: why."""

    by: str
    comment: str


class BundleRecord(Record):
    """The assembled bundle. folder: its name below the run's folder; files: sha256 by name, the manifest included."""

    folder: str
    bytes: int
    files: dict[str, str]
