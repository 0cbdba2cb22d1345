"""Have original and bundle answer tasks of lm-eval, and put their scores side by side.

Both models are in memory and get the same requests, in the same batches, with the same seeds.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from taylor_ops.config.exactness import Task
from taylor_ops.model.loading import load_both, load_tokenizer
from taylor_ops.progress import Progress, part_of
from taylor_ops.tasks.definition import Definition, definition_of
from taylor_ops.tasks.prepare import FAILURES, in_bounds, prepared, refused
from taylor_ops.tasks.record import MetricScores, TaskScores, TasksRecord

_KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
_SHARE = 1000


def evaluate(
    original: Path,
    bundle: Path,
    dtype: str,
    tasks: Sequence[Task],
    device: torch.device,
    seed: int,
    progress: Progress,
    scratch: Path,
) -> TasksRecord:
    """The scores of original and bundle on every task. `judged` in `tasks/gate.py` judges them.

    Raises:
        BadInput: A task cannot be read or run, or something in it could run code.

    Args:
        original: Folder of the original.
        bundle: Folder of the converted model.
        dtype: Data type of the original.
        tasks: The tasks.
        device: Device that holds both models.
        seed: Seed of the examples that a task draws, and of answers that it samples.
        progress: Receives thousandths of the requests of a model for a task, and those of all.
        scratch: Folder in which `load_both` may put what memory does not hold. The caller removes it.
    """
    models, tokenizer = load_both(original, bundle, dtype, device, scratch), load_tokenizer(original)
    total, found = 2 * len(tasks) * _SHARE, []
    with in_bounds(), tempfile.TemporaryDirectory(prefix="taylor-tasks-") as cache:
        for number, task in enumerate(tasks):
            definition, both = definition_of(task), []
            for side, model in enumerate(models):
                part = part_of(progress, (2 * number + side) * _SHARE, _SHARE, total)
                both.append(_answered(model, tokenizer, definition, task, seed, Path(cache), part))
            found.append(_compared(definition, *both))
    return TasksRecord(tasks=tuple(found))


def _answered(
    model: Any, tokenizer: Any, definition: Definition, task: Task, seed: int, cache: Path, progress: Progress
) -> dict[str, Any]:
    """What lm-eval finds of one model on one task: `results` and `samples`."""
    from lm_eval.evaluator import evaluate as ask
    from lm_eval.models.huggingface import HFLM

    asked, answering = (
        prepared(definition, cache),
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=task.batch_size, trust_remote_code=False),
    )
    for kind in _KINDS:
        setattr(answering, kind, partial(_counted, answering, getattr(answering, kind), progress))
    asked.set_fewshot_seed(seed)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found: dict[str, Any] = ask(
                answering, {"tasks": {definition.task: asked}}, limit=task.limit, bootstrap_iters=0
            )
    except FAILURES as error:
        raise refused(definition, error) from error
    progress(1, 1)
    return found


class _Counting:
    """Takes the place of the cache of lm-eval, which is told of every answer."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add_partial(self, _kind: str, _request: Any, _answer: Any) -> None:
        """Count an answer."""
        self._done += 1
        self._progress(min(self._done, self._total), self._total)


def _counted(answering: Any, ask: Callable[..., Any], progress: Progress, requests: Sequence[Any]) -> Any:
    answering.set_cache_hook(_Counting(progress, len(requests)))
    return ask(requests, disable_tqdm=True)


def _compared(definition: Definition, original: dict[str, Any], bundle: dict[str, Any]) -> TaskScores:
    task = definition.task
    scores = [_scores(found["results"][task]) for found in (original, bundle)]
    samples = [_by_document(found["samples"][task]) for found in (original, bundle)]
    kind = str(definition.values.get("output_type", "generate_until"))
    answers = [[_answer(kind, sample["filtered_resps"]) for sample in those] for those in samples]
    return TaskScores(
        task=task,
        documents=len(samples[0]),
        sha256=hashlib.sha256("\n".join(sample["doc_hash"] for sample in samples[0]).encode()).hexdigest(),
        answers_equal=None
        if kind == "loglikelihood_rolling"
        else sum(one == other for one, other in zip(*answers, strict=True)),
        metrics=tuple(
            MetricScores(
                metric=metric if chosen == "none" else f"{metric} ({chosen})",
                original=value,
                bundle=scores[1][metric, chosen],
                difference=scores[1][metric, chosen] - value,
                stderr=_stderr(metric, chosen, original["samples"][task]),
            )
            for (metric, chosen), value in scores[0].items()
        ),
    )


def _scores(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """The scores by metric and filter."""
    found = {}
    for key, value in results.items():
        metric, comma, chosen = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            found[metric, chosen] = float(value)
    return found


def _by_document(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One sample for each document, in their order, by the first filter of the task."""
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return sorted(first, key=lambda sample: int(sample["doc_id"]))


def _answer(kind: str, responses: Sequence[Any]) -> Any:
    """What a model answered to one document: the choice it finds likeliest, whether it would say this, or a text."""
    if kind == "multiple_choice":
        return max(range(len(responses)), key=lambda choice: float(responses[choice][0]))
    if kind == "loglikelihood":
        return [bool(greedy) for _, greedy in responses]
    return list(responses)


def _stderr(metric: str, chosen: str, samples: Sequence[dict[str, Any]]) -> float | None:
    values = [sample.get(metric) for sample in samples if sample["filter"] == chosen]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values) or len(numbers) < 2:
        return None
    return statistics.stdev(numbers) / math.sqrt(len(numbers))
