"""How it is told what a run had in place of what its file says, alike in previews, approvals and cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from taylor_ops.presentation.wording import markdown_table


def overridden_in_markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A table below a line that says what it is, with a final newline. Empty if nothing was overridden.

    Args:
        found: By dotted key, the values of the run (`run`) and of the file (`file`), which may be missing.
    """
    if not found:
        return ""
    rows = [[f"`{key}`", _json(one["file"]) if "file" in one else "", _json(one["run"])] for key, one in found.items()]
    table = markdown_table(["key", "file", "run"], rows)
    return f"The run had these values in place of those of its file:\n\n{table}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
