"""The file of recipients: who received a copy of which version, one on each line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from taylor_ops.config.evidence import RECIPIENT
from taylor_ops.errors import BadInput


class Recipient(NamedTuple):
    """Who received a copy, and of which version."""

    name: str
    version: str


def read_recipients(file: Path, version: str | None = None) -> list[Recipient]:
    """Read a file with `NAME VERSION` on each line.

    Empty lines, and everything after a #, are ignored. A copy that is listed twice counts once.

    Args:
        file: The file to read.
        version: Version of lines with a `NAME` alone. None to reject such lines.

    Raises:
        BadInput: The file cannot be read or names no recipient, or a line is wrong, which the error names.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}", "name a text file with one recipient on each line") from error
    found: dict[Recipient, None] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) > 2 or re.fullmatch(RECIPIENT, words[0]) is None:
            raise BadInput(
                f"{file}:{number}: `{line.strip()}` is no recipient", "write NAME VERSION, such as acme 1.0.0"
            )
        if len(words) == 1 and version is None:
            raise BadInput(
                f"{file}:{number}: `{words[0]}` has no version, on which its mark depends",
                "write NAME VERSION, or give --version for all lines without one",
            )
        found[Recipient(words[0], words[1] if len(words) == 2 else str(version))] = None
    if not found:
        raise BadInput(f"{file} names no recipient", "write one on each line: NAME VERSION")
    return list(found)
