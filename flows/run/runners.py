"""Which Prefect task runner carries the parts of a conversion to which workers."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any

from prefect import get_client, task, unmapped
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from flows.run.log_filter import without_tracebacks
from taylor_ops.config.conversion import Execution
from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion.parts import Carry, Job
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.machine.allocator import keep_freed_memory
from taylor_ops.machine.threads import threads_restored, use_threads

_EXTRAS = {"dask": "prefect_dask", "ray": "prefect_ray"}


def require_installed(execution: Execution) -> None:
    """Raise `BadInput` where the runner of a config needs an extra that is not there."""
    module = _EXTRAS.get(execution.runner)
    if module is not None and find_spec(module) is None:
        raise BadInput(
            f"`execution.runner: {execution.runner}` needs the package {module.replace('_', '-')}, "
            "which is not installed",
            f"pip install taylor-release[{execution.runner}]",
        )


def carried_by(execution: Execution) -> Carry | None:
    """Who converts the parts: the workers that a config asks for, or None for this process, in order."""
    return None if execution.runner == "sequential" else partial(_carry, execution)


@task(task_run_name="convert part {job.folder.name}")
def convert_part(job: Job, threads: int) -> None:
    """Convert one part, in whichever process the runner starts this."""
    without_tracebacks()
    keep_freed_memory()
    use_threads(threads)
    conversion.convert_part(job)


def _carry(execution: Execution, jobs: Sequence[Job], report: Callable[[int], None]) -> None:
    """Convert every job on the workers of a runner; the error of a part is raised as the part raised it."""
    runner, deaths = _RUNNERS[execution.runner](execution)
    failures: tuple[type[Exception], ...] = (ImportError, *deaths)
    with get_client(sync_client=True) as client:
        server = {PREFECT_API_URL: str(client.api_url)}
    # Without its address every worker would start a server of its own, where this process has started a temporary one.
    with ExitStack() as stack:
        stack.enter_context(threads_restored())
        stack.enter_context(temporary_settings(server))
        try:
            stack.enter_context(runner)
            parts = runner.map(convert_part, {"job": jobs, "threads": unmapped(_threads(execution))})
        except OSError as error:
            if execution.address is None:
                raise
            raise WorkFailed(
                f"no {execution.runner} cluster answers at {execution.address}: {error}",
                "start one there or correct `execution.address`, then run again: finished stages are reused",
            ) from error
        for done, part in enumerate(parts, start=1):
            try:
                part.result()
            except failures as error:
                raise _of_a_worker(execution.runner, error) from error
            report(done)


def _of_a_worker(runner: str, error: Exception) -> WorkFailed:
    """What a person is told of a worker that could not begin a part or died of it."""
    said = " ".join(str(error).split())
    # Ray tells of a module that a machine lacks as an error of its system.
    if isinstance(error, ImportError) or "No module named" in said:
        return WorkFailed(
            f"a worker of runner `{runner}` cannot load what a part needs: {said}",
            "install this version of taylor-release on every machine of the cluster, then run again: finished parts "
            "are kept",
        )
    return WorkFailed(
        f"a worker of runner `{runner}` died, or its cluster did: {said}",
        "the usual cause is too little memory for a part a worker: lower `execution.workers`, then run again: finished "
        "parts are kept",
    )


def _threads(execution: Execution) -> int:
    """Threads of torch a worker: its share of the cores, or 1 where workers share a process, or may.

    The setting is one of the whole process, and workers that change it there under each other would change bytes.
    """
    alone = execution.runner != "threads" and execution.address is None
    return max(1, (os.cpu_count() or 1) // execution.workers) if alone else 1


_Chosen = tuple[Any, tuple[type[Exception], ...]]
"""A task runner, and what it raises when a worker died."""


def _threads_of_this_process(execution: Execution) -> _Chosen:
    return ThreadPoolTaskRunner(max_workers=execution.workers), ()


def _processes(execution: Execution) -> _Chosen:
    runner = ProcessPoolTaskRunner(max_workers=execution.workers, initializer=_end_with_the_parent)
    return runner, (BrokenExecutor,)


def _dask(execution: Execution) -> _Chosen:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from prefect_dask import DaskTaskRunner

    # Dask would kill a worker for taking more than its share of the memory, however much is free.
    local = {
        "n_workers": execution.workers,
        "threads_per_worker": 1,
        "memory_limit": None,
        "dashboard_address": "127.0.0.1:0",
    }
    there = {"address": execution.address} if execution.address else {"cluster_kwargs": local}
    return DaskTaskRunner(**there), (KilledWorker, FutureCancelledError)


def _ray(execution: Execution) -> _Chosen:
    from prefect_ray import RayTaskRunner

    # Not `from ray.exceptions`: prefect_ray imports ray lazily, and its modules would be loaded a second time.
    from ray import exceptions

    # Without `local` Ray would look for a cluster on this machine, to which no number of workers can be given.
    local = {
        "address": "local",
        "num_cpus": execution.workers,
        "include_dashboard": False,
        "logging_level": "warning",
    }
    there = {"address": execution.address} if execution.address else {"init_kwargs": local}
    # Not their base class, of which the error that a part raised by itself is one too.
    deaths = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
        exceptions.RaySystemError,
    )
    return RayTaskRunner(**there), deaths


_RUNNERS: dict[str, Callable[[Execution], _Chosen]] = {
    "threads": _threads_of_this_process,
    "processes": _processes,
    "dask": _dask,
    "ray": _ray,
}


def _end_with_the_parent() -> None:
    """End this worker when its parent is killed: the pool itself would leave it waiting, and at work, for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
