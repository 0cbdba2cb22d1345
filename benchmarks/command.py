"""The command that started a benchmark, as its JSON records it."""

from __future__ import annotations

import shlex
import sys


def typed(name: str) -> str:
    """`python -m benchmarks.NAME` with every argument that was given.

    Absolute paths are one person's: they are written as FOLDER, but for those below /dev, a disk in memory, which tell
    what was measured.
    """
    return " ".join(["python -m benchmarks." + name, *map(_shown, sys.argv[1:])])


def _shown(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    if value.startswith(("/", "~", "..")) and not value.startswith("/dev/"):
        value = "FOLDER"
    return shlex.quote(option + equals + value)
