"""What the stage `resolve` leaves: the record of a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taylor_ops.storage.record import Record


class ResolvedSource(Record):
    """Where the original is, and what identifies it.

    folder: safetensors, config and tokenizer files. origin: the same place in words that hold on any machine.
    sha256: of every file that the release reads, by name. parameters: number of stored values.
    """

    folder: Path
    origin: str
    model_type: str
    sha256: dict[str, str]
    parameters: int

    def identity(self) -> dict[str, Any]:
        """The content alone: the same files in another folder are the same source."""
        return {"sha256": self.sha256}

    def missing(self) -> list[str]:
        """Names of its files that are not in its folder any more: a cache of the Hub may be gone, or another's."""
        return [name for name in self.sha256 if not (self.folder / name).is_file()]

    def portable(self) -> dict[str, Any]:
        """What may be published: everything but the place on this machine."""
        values = self.plain()
        del values["folder"]
        return values
