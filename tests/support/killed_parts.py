"""Converts a model on two worker processes and is killed by itself after two parts, with the workers at work.

Started by its path. Reads `{"original": folder, "ranges": file, "plan": file, "conversion": {...}, "folder": folder,
"kept": folder}` from standard input, and prints the ids of the processes that it leaves behind.
"""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
from prefect import flow

from flows.run.runners import carried_by
from taylor_ops.config.conversion import Conversion, Execution
from taylor_ops.conversion import convert, parts
from taylor_ops.conversion.terms import Subject
from taylor_ops.model.original import Original
from taylor_ops.series.plan import Plan


def after_two(done: int, _total: int) -> None:
    """Say who is left, and die."""
    if done == 2:
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


@flow
def killed() -> None:
    """Convert, one layer a part."""
    request = json.load(sys.stdin)
    parts._PART_VALUES = 0
    convert.convert(
        Subject(Original(Path(request["original"])), Path(request["ranges"]), Conversion(**request["conversion"])),
        Plan.read(Path(request["plan"])),
        Path(request["folder"]),
        after_two,
        Path(request["kept"]),
        carried_by(Execution(runner="processes")),
    )


if __name__ == "__main__":
    killed()
