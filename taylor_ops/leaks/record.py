"""What the stage `leaks` leaves: the record that no leak was found."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class NoLeak(Record):
    """What was looked through without a finding: files, tensors, and lines of withheld matrices looked for in them."""

    files: int
    tensors: int
    lines: int
