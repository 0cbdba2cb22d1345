"""The gate of the stage `tasks`: the scores of original and bundle differ by no more than the config allows."""

from __future__ import annotations

from collections.abc import Sequence

from taylor_ops.config.exactness import Task
from taylor_ops.errors import GateRejected
from taylor_ops.tasks.record import TasksRecord


def judged(record: TasksRecord, tasks: Sequence[Task]) -> TasksRecord:
    """The record with the difference that each task allows.

    Raises:
        GateRejected: A score of the bundle differs by more, or is no number.
    """
    for found, task in zip(record.tasks, tasks, strict=True):
        for one in found.metrics:
            # A score that is no number fails every comparison.
            if not abs(one.difference) <= task.difference:
                answers = "" if found.answers_equal is None else f", answers equal {found.answers_equal}"
                raise GateRejected(
                    f"task `{found.task}`: {one.metric} is {one.bundle:.6g}, that of the original {one.original:.6g}: "
                    f"more than {task.difference:g} apart (documents {found.documents}{answers})",
                    "tighten `conversion.tolerance` or widen `conversion.range_margin`; if it scores likelihoods, "
                    "which rounding moves, allow a `difference` for it",
                )
    return TasksRecord(
        tasks=tuple(
            found.model_copy(update={"allowed": task.difference})
            for found, task in zip(record.tasks, tasks, strict=True)
        )
    )
