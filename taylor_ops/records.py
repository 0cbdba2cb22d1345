"""The base of every stage record: small, frozen, and the same thing in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from taylor_ops.files import canonical_json, write_text


class Record(BaseModel):
    """A frozen result of a stage. Tensors travel as files that a record names, never inside one."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    def identity(self) -> dict[str, Any]:
        """What of this record decides the work downstream: everything, unless a record leaves out places and times."""
        return self.model_dump(mode="json")

    def write(self, path: Path) -> None:
        """Write this record as JSON; it appears whole."""
        write_text(path, canonical_json(self.model_dump(mode="json")))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record that `write` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
