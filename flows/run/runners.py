"""Convert the parts of a model on the workers of a Prefect task runner."""

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
    """Raise `BadInput` if the runner of a config needs an extra that is not installed."""
    module = _EXTRAS.get(execution.runner)
    if module is not None and find_spec(module) is None:
        raise BadInput(
            f"`execution.runner: {execution.runner}` needs the package {module.replace('_', '-')}, "
            "which is not installed",
            f"pip install taylor-release[{execution.runner}]",
        )


def carried_by(execution: Execution) -> Carry | None:
    """What carries the parts to the workers of a config, or None if this process converts them in order."""
    return None if execution.runner == "sequential" else partial(_carry, execution)


@task(task_run_name="convert part {job.folder.name}")
def convert_part(job: Job, threads: int) -> None:
    """Convert one part, in the process that the runner chose."""
    without_tracebacks()
    keep_freed_memory()
    use_threads(threads)
    conversion.convert_part(job)


def _carry(execution: Execution, jobs: Sequence[Job], report: Callable[[int], None]) -> None:
    """Convert every job on the workers of a runner. An error of a part is raised unchanged."""
    runner, deaths = _RUNNERS[execution.runner](execution)
    failures: tuple[type[Exception], ...] = (ImportError, *deaths)
    with get_client(sync_client=True) as client:
        server = {PREFECT_API_URL: str(client.api_url)}
    # Without this address every worker would start a server of its own if this process uses a temporary one.
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
    """The error of a worker that could not begin a part or died from it."""
    reason = " ".join(str(error).split())
    # Ray reports a missing module as an error of its own system.
    if isinstance(error, ImportError) or "No module named" in reason:
        return WorkFailed(
            f"a worker of runner `{runner}` cannot load what a part needs: {reason}",
            "install this version of taylor-release on every machine of the cluster, then run again: finished parts "
            "are kept",
        )
    return WorkFailed(
        f"a worker of runner `{runner}` died, or its cluster did: {reason}",
        "the usual cause is too little memory for one part per worker: lower `execution.workers`, then run again: "
        "finished parts are kept",
    )


def _threads(execution: Execution) -> int:
    """Number of torch threads per worker: its share of the cores, or 1 if workers may share a process.

    The number applies to a whole process. Workers that share it and change the number at once would change bytes.
    """
    alone = execution.runner != "threads" and execution.address is None
    return max(1, (os.cpu_count() or 1) // execution.workers) if alone else 1


_Chosen = tuple[Any, tuple[type[Exception], ...]]
"""A task runner, and the errors that it raises when a worker dies."""


def _threads_of_this_process(execution: Execution) -> _Chosen:
    return ThreadPoolTaskRunner(max_workers=execution.workers), ()


def _processes(execution: Execution) -> _Chosen:
    runner = ProcessPoolTaskRunner(max_workers=execution.workers, initializer=_end_with_the_parent)
    return runner, (BrokenExecutor,)


def _dask(execution: Execution) -> _Chosen:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from prefect_dask import DaskTaskRunner

    # Dask would kill a worker that takes more than its share of the memory, even if memory is free.
    local = {
        "n_workers": execution.workers,
        "threads_per_worker": 1,
        "memory_limit": None,
        "dashboard_address": "127.0.0.1:0",
    }
    cluster = {"address": execution.address} if execution.address else {"cluster_kwargs": local}
    return DaskTaskRunner(**cluster), (KilledWorker, FutureCancelledError)


def _ray(execution: Execution) -> _Chosen:
    from prefect_ray import RayTaskRunner

    # Not `from ray.exceptions`, because prefect_ray imports ray lazily and its modules would be loaded a second time.
    from ray import exceptions

    # Without `local` Ray would look for a running cluster on this machine, whose number of workers cannot be set.
    local = {
        "address": "local",
        "num_cpus": execution.workers,
        "include_dashboard": False,
        "logging_level": "warning",
    }
    cluster = {"address": execution.address} if execution.address else {"init_kwargs": local}
    # Not their base class, which also covers errors that a part itself raised.
    deaths = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
        exceptions.RaySystemError,
    )
    return RayTaskRunner(**cluster), deaths


_RUNNERS: dict[str, Callable[[Execution], _Chosen]] = {
    "threads": _threads_of_this_process,
    "processes": _processes,
    "dask": _dask,
    "ray": _ray,
}


def _end_with_the_parent() -> None:
    """End this worker when its parent is killed, because the pool would leave it running for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
