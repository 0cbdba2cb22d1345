"""Converts a model and is killed on the way, by itself: after a part is finished, or in the middle of a file."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Literal

from taylor_ops.conversion import convert, parts
from taylor_ops.conversion.terms import Subject
from taylor_ops.model import shards
from taylor_ops.series.plan import Plan


def killed_conversion(
    subject: Subject, plan: Plan, folder: Path, kept: Path, killed: Literal["after a part", "in a file"]
) -> None:
    """Convert, in a process of its own, one layer a part."""
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
    if killed == "in a file":
        shards.write_tensors = save_half
    convert.convert(subject, plan, folder, after_two, kept)
