"""What an attack recovers of a task: a record."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Task(Record):
    """What training for a task did to the loss on text of it that was held out, in nats a token.

    loss_before: with the withheld weights at random. loss_after: as trained. loss_original: of the original, untrained.
    """

    tokens_trained: int
    tokens_held_out: int
    loss_before: float
    loss_after: float
    loss_original: float

    @property
    def regained(self) -> float:
        """Share of the loss that random weights cost which training won back; above 1 where it beats the original."""
        lost = self.loss_before - self.loss_original
        return (self.loss_before - self.loss_after) / lost if lost > 0 else 1.0
