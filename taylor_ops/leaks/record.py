"""What the stage `leaks` leaves: the record that no leak was found."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class NoLeak(Record):
    """What the leak gate searched without finding anything.

    Attributes:
        files: Number of files.
        tensors: Number of tensors in them.
        lines: Number of rows and columns of protected matrices that were looked for in the tensors.
    """

    files: int
    tensors: int
    lines: int
