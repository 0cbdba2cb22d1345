"""What is recorded of a marked copy: on the owner's side alone, for it names the recipient."""

from __future__ import annotations

from taylor_ops.storage.record import Record

IN_WORDS = (
    "This copy is marked: its output weights carry a keyed pattern that tells its publisher which copy it is, and that "
    "is made to stay in models rebuilt, fine-tuned, quantised, pruned or merged from it."
)
"""What card and manifest say of it."""


class MarkedCopy(Record):
    """Whose copy a model is. key: the name of the key; strength: how far marked weights are moved, relative."""

    recipient: str
    key: str
    strength: float
