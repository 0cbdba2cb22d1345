"""What a benchmark records of how it was started: every argument, and no folder of the person who did."""

from __future__ import annotations

import sys

import pytest

from benchmarks.command import typed


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], ""),
        (["--rounds", "3"], " --rounds 3"),
        (["--folder", "/dev/shm", "--layers=4"], " --folder /dev/shm --layers=4"),
        (["--data", "/home/somebody/data"], " --data FOLDER"),
        (["--data=/home/somebody/data"], " --data=FOLDER"),
        (["--data", "~/data"], " --data FOLDER"),
        (["--data", "../data"], " --data FOLDER"),
        (["--name", "two words"], " --name 'two words'"),
    ],
)
def test_a_command_is_recorded_whole_but_for_the_folders_of_a_person(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/somebody/benchmarks/convert.py", *arguments])
    assert typed("convert") == "python -m benchmarks.convert" + command
