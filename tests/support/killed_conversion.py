"""Converts a model and is killed on the way, by itself: after a part is finished, or in the middle of a file.

Started by its path. Reads `{"original": folder, "ranges": file, "plan": file, "conversion": {...}, "folder": folder,
"kept": folder, "killed": "after a part" | "in a file"}` from standard input.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from taylor_ops.config.conversion import Conversion
from taylor_ops.conversion import convert, parts
from taylor_ops.conversion.terms import Subject
from taylor_ops.model import shards
from taylor_ops.model.original import Original
from taylor_ops.series.plan import Plan


def main() -> None:
    """Convert, one layer a part."""
    request = json.load(sys.stdin)
    parts._PART_VALUES = 0
    saved = []

    def save_half(tensors: Any, path: Path) -> None:
        saved.append(path)
        whole(tensors, path)
        if len(saved) == 2:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def after_two(done: int, _total: int) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    whole = shards.write_tensors
    if request["killed"] == "in a file":
        shards.write_tensors = save_half
    convert.convert(
        Subject(Original(Path(request["original"])), Path(request["ranges"]), Conversion(**request["conversion"])),
        Plan.read(Path(request["plan"])),
        Path(request["folder"]),
        after_two,
        Path(request["kept"]),
    )


if __name__ == "__main__":
    main()
