"""Captures the ranges of a model and is killed on the way, by itself: in the middle of a layer, or of a file.

Started by its path. Reads `{"original": folder, "calibration": {...}, "folder": folder, "kept": folder, "killed":
"in a layer" | "in a file"}` from standard input.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from taylor_ops.capture.capture import capture
from taylor_ops.config.texts import Calibration
from taylor_ops.model import shards


def main() -> None:
    """Capture; the second layer is at work when it ends."""
    request = json.load(sys.stdin)
    torch.set_num_threads(1)

    def save_half(tensors: Any, path: Path, **more: Any) -> None:
        whole(tensors, path, **more)
        if path.parent.name == "states-2":
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def in_the_second(done: int, total: int) -> None:
        if 3 * done > total:
            os.kill(os.getpid(), signal.SIGKILL)

    whole = shards.save_file
    if request["killed"] == "in a file":
        shards.save_file = save_half
    capture(
        Path(request["original"]),
        "float32",
        Calibration(**request["calibration"]),
        torch.device("cpu"),
        Path(request["folder"]),
        in_the_second,
        Path(request["kept"]),
    )


if __name__ == "__main__":
    main()
