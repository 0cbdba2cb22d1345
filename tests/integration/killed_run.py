"""Runs `taylor-release run` and is killed on the way, by itself, where it is told to be.

Started by its path. Reads `{"arguments": [...], "killed": "in a layer" | "between layers" | "in a shard" | null}` from
standard input. Every layer is a part of the conversion; the clock is simulated, so that all runs choose the same plan.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from flows.command_line import main
from taylor_ops import checkpoint, convert, latency
from taylor_ops.unfinished import Unfinished
from tests.flows.conftest import decode_seconds

LAYER = 1
"""The layer, and the part, at which it is killed: the second."""


def die() -> None:
    """End as `kill -9` ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_layer() -> None:
    """In capture, when a layer has run on one batch of several."""
    usual = Unfinished.read

    def read(self: Unfinished, layer: int, batch: int) -> Any:
        if (layer, batch) == (LAYER, 1):
            die()
        return usual(self, layer, batch)

    Unfinished.read = read  # type: ignore[method-assign]


def between_layers() -> None:
    """In conversion, when a part is finished and the next is not begun."""
    usual, made = convert._convert_part, []

    def convert_part(*given: Any) -> None:
        if len(made) > LAYER:
            die()
        usual(*given)
        made.append(given)

    convert._convert_part = convert_part


def in_a_shard() -> None:
    """In conversion, when half of a shard is written."""
    usual = checkpoint.write_tensors

    def write_tensors(tensors: Any, path: Path) -> None:
        usual(tensors, path)
        os.truncate(path, path.stat().st_size // 2)
        die()

    checkpoint.write_tensors = write_tensors


KILLED = {"in a layer": in_a_layer, "between layers": between_layers, "in a shard": in_a_shard}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    convert._PART_VALUES = 0
    latency.decode_seconds = decode_seconds
    if request["killed"]:
        KILLED[request["killed"]]()
    sys.argv = ["taylor-release", *request["arguments"]]
    main()
