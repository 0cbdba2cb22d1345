"""The base of every stage record: small, frozen, and the same thing in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from taylor_ops.masking import masked_values
from taylor_ops.storage.files import write_text


class Record(BaseModel):
    """A frozen result of a stage. Tensors travel as files that a record names, never inside a record."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings", defer_build=True)

    def identity(self) -> dict[str, Any]:
        """The values that decide the work downstream: all of them, unless a record leaves out places and times."""
        return self.plain()

    def plain(self) -> dict[str, Any]:
        """This record as plain JSON values. Numbers that are not finite become text, as JSON has no such numbers."""
        values: dict[str, Any] = json.loads(self.model_dump_json())
        return values

    def write(self, path: Path) -> None:
        """Write this record as a JSON file that appears whole, without any secret of this process."""
        text, values = self.model_dump_json(indent=2), self.plain()
        shown = masked_values(values)
        write_text(path, (text if shown == values else json.dumps(shown, indent=2, ensure_ascii=False)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record that `write` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
