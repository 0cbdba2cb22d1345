"""The record of a training: what an attack that trains for a task did to the loss."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Task(Record):
    """What training for a task did to the loss on held-out text of this task, in nats a token.

    Attributes:
        loss_before: Loss with random weights in place of the protected ones.
        loss_after: Loss with the trained weights.
        loss_original: Loss of the original, without training for the task.
    """

    tokens_trained: int
    tokens_held_out: int
    loss_before: float
    loss_after: float
    loss_original: float

    @property
    def regained(self) -> float:
        """The share of the loss caused by random weights that training won back; above 1 if it beats the original."""
        lost = self.loss_before - self.loss_original
        return (self.loss_before - self.loss_after) / lost if lost > 0 else 1.0
