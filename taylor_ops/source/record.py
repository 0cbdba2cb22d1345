"""The record of a source, which the stage `resolve` leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taylor_ops.storage.record import Record


class ResolvedSource(Record):
    """Where the original is, and what identifies it.

    Attributes:
        folder: Folder with safetensors, config and tokenizer files.
        origin: Where the source comes from, in words that hold on any machine.
        model_type: Architecture, as transformers names it.
        sha256: SHA-256 of every file that the release reads, by file name.
        parameters: Number of stored values.
        left_out: Tensors of the source that the model does not use, and that `source.ignore` names.
    """

    folder: Path
    origin: str
    model_type: str
    sha256: dict[str, str]
    parameters: int
    left_out: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """The content alone, because the same files in another folder are the same source."""
        return {"sha256": self.sha256}

    def missing(self) -> list[str]:
        """Names of its files that its folder lacks, because a Hub cache was deleted or is on another machine."""
        return [name for name in self.sha256 if not (self.folder / name).is_file()]

    def portable(self) -> dict[str, Any]:
        """The values that may be published: all but the folder, which is a place on this machine."""
        values = self.plain()
        del values["folder"]
        return values
