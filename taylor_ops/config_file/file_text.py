"""The text of a config file, or why it cannot be read."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.storage.files import kind_of

_MAX_BYTES = 1_000_000


class NoText(ValueError):
    """A file that holds no text of a config, with the line at which that shows. None if it shows at no line."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def text_of(path: Path, only_a_file: bool = False) -> str:
    """The text of a file, without a byte order mark. Raises `NoText`.

    Args:
        path: Path of the file.
        only_a_file: Whether to refuse a pipe or a device, which might never end.
    """
    try:
        if only_a_file and path.exists() and not path.is_file():
            raise NoText(f"is {kind_of(path)}, not a file")
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise NoText(f"cannot be read: {error.strerror or error}") from error
    if len(data) > _MAX_BYTES:
        raise NoText(f"is larger than {_MAX_BYTES} bytes; this is no release config")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise NoText("is not UTF-8 text; save the file as UTF-8", line) from error
