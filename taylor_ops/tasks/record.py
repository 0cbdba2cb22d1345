"""What the stage `tasks` leaves: the scores of original and bundle."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class MetricScores(Record):
    """One metric of a task.

    Attributes:
        metric: Its name, with that of the filter of the answers if the task has one.
        original: The score of the original.
        bundle: The score of the bundle.
        difference: The score of the bundle minus that of the original.
        stderr: Standard error of the original's score over the documents. None if the score is no mean over them.
    """

    metric: str
    original: float
    bundle: float
    difference: float
    stderr: float | None


class TaskScores(Record):
    """The scores on one task.

    Attributes:
        documents: Number of documents that both models were asked about.
        sha256: Hash of these documents.
        answers_equal: On how many of them both gave the same answer. None if the task asks for none, only for
            likelihoods.
        allowed: The largest difference that the gate allows. It is no result of the stage, but judges it.
    """

    task: str
    documents: int
    sha256: str
    answers_equal: int | None
    metrics: tuple[MetricScores, ...]
    allowed: float = 0.0


class TasksRecord(Record):
    """The scores on every task that the config names, in its order."""

    tasks: tuple[TaskScores, ...]
