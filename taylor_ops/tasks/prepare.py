"""Bring the data set of a task to this machine, and hold lm-eval to what a task may do."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from taylor_ops.config.exactness import Task
from taylor_ops.errors import BadInput
from taylor_ops.storage.files import FULL_OR_CLOSED
from taylor_ops.tasks.definition import Definition, definition_of

FAILURES = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, ImportError)
"""What lm-eval raises for a task that is not as it should be."""


def require_tasks(tasks: Sequence[Task]) -> None:
    """Bring every task to this machine once, so that a mistake in one ends the release before its long work.

    Raises:
        BadInput: A task cannot be read or prepared, or something in it could run code.
    """
    if not tasks:
        return
    definitions = [definition_of(task) for task in tasks]
    names = [definition.task for definition in definitions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"two tasks of `exactness.tasks` are called `{twice}`", "name each task once")
    with in_bounds(), tempfile.TemporaryDirectory(prefix="taylor-tasks-") as scratch:
        for definition in definitions:
            prepared(definition, Path(scratch))


def notes_on_tasks(tasks: Sequence[Task]) -> tuple[str, ...]:
    """What a person should know of the tasks before a release: which data sets come from the Hub."""
    found = [definition_of(task) for task in tasks]
    return tuple(
        f"the task {definition.task} reads {definition.hub_name} from the Hub"
        + ("" if definition.values["dataset_kwargs"].get("revision") else ", as it is there on the day")
        for definition in found
        if definition.hub_name is not None
    )


def prepared(definition: Definition, cache: Path) -> Any:
    """The task as an object of lm-eval, with its data set. What `datasets` makes of files goes to `cache`.

    Raises:
        BadInput: lm-eval refuses the task, or its data set cannot be read.
    """
    import datasets
    from huggingface_hub.utils import disable_progress_bars
    from lm_eval.api.task import ConfigurableTask

    datasets.disable_progress_bars()
    disable_progress_bars()
    values = {"num_fewshot": 0} | deepcopy(definition.values)
    if definition.data_files is not None:
        # The usual cache recognises a changed file by its time alone.
        values["dataset_kwargs"]["cache_dir"] = str(cache)
    try:
        return ConfigurableTask(config=values)
    except (datasets.exceptions.DatasetsError, OSError, *FAILURES) as error:
        if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
            raise
        raise refused(definition, error) from error


def refused(definition: Definition, error: BaseException) -> BadInput:
    """The error of a task that lm-eval cannot run."""
    reason = " ".join(str(error).split()) or type(error).__name__
    remedy = "correct the task and its data"
    if definition.hub_name is not None:
        remedy += "; for one of the Hub, check the network, HF_HUB_OFFLINE, and HF_TOKEN of an account that may read it"
    return BadInput(f"lm-eval cannot run the task `{definition.task}`: {reason}", remedy)


@contextmanager
def in_bounds() -> Iterator[None]:
    """While open, templates of tasks cannot reach beyond their document, and lm-eval says and draws only errors."""
    import lm_eval.api.task
    import lm_eval.utils

    usual = lm_eval.utils.env
    sandbox = ImmutableSandboxedEnvironment(
        loader=usual.loader, undefined=usual.undefined, keep_trailing_newline=usual.keep_trailing_newline
    )
    sandbox.filters |= usual.filters
    logger = logging.getLogger("lm_eval")
    level = logger.level
    with ExitStack() as stack:
        stack.enter_context(_in_place(lm_eval.utils, "env", sandbox))
        stack.enter_context(_in_place(lm_eval.api.task, "tqdm", _no_bar))
        logger.setLevel(logging.ERROR)
        stack.callback(logger.setLevel, level)
        yield


def _no_bar(items: Iterable[Any], **_options: Any) -> Iterable[Any]:
    return items


@contextmanager
def _in_place(module: Any, name: str, value: Any) -> Iterator[None]:
    usual = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, usual)
