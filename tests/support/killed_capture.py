"""Captures the ranges of a model and is killed on the way, by itself: in the middle of a layer, or of a file."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Literal

import torch

from taylor_ops.capture.capture import capture
from taylor_ops.config.texts import Calibration
from taylor_ops.model import shards


def killed_capture(
    original: Path, calibration: Calibration, folder: Path, kept: Path, killed: Literal["in a layer", "in a file"]
) -> None:
    """Capture, in a process of its own; the second layer is at work when it ends."""

    def save_half(tensors: Any, path: Path, **more: Any) -> None:
        whole(tensors, path, **more)
        if path.parent.name == "states-2":
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def in_the_second(done: int, total: int) -> None:
        if 3 * done > total:
            os.kill(os.getpid(), signal.SIGKILL)

    whole = shards.save_file
    if killed == "in a file":
        shards.save_file = save_half
    capture(original, "float32", calibration, torch.device("cpu"), folder, in_the_second, kept)
