"""Convert a checkpoint: the same model with stacked Taylor terms in place of the MLP output weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import torch

from taylor_ops.conversion.modeling_files import write_code, write_config
from taylor_ops.conversion.parts import Carry, Job, parts_of
from taylor_ops.conversion.record import ConvertedModel, LayerConversion
from taylor_ops.conversion.terms import Subject, part_tensors
from taylor_ops.errors import WorkFailed
from taylor_ops.machine.devices import CPU, DTYPES
from taylor_ops.machine.threads import threads_restored, use_threads
from taylor_ops.model.original import Original
from taylor_ops.model.shards import gather_shards, write_shards
from taylor_ops.progress import Progress
from taylor_ops.series.bound import Bound
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.layout import Layout
from taylor_ops.series.plan import Plan
from taylor_ops.source.files import copy_along
from taylor_ops.storage.files import (
    disk_errors_explained,
    folder_that_appears_whole,
    require_free,
    scratch_beside,
)
from taylor_ops.storage.record import Record

_PART_RECORD = "part.json"


class _Converted(Record):
    """The record of a finished part."""

    layers: tuple[LayerConversion, ...]
    widths: dict[str, list[int]]


def convert(
    subject: Subject,
    plan: Plan,
    folder: Path,
    progress: Progress,
    kept: Path | None = None,
    carry: Carry | None = None,
    device: torch.device = CPU,
) -> ConvertedModel:
    """Write the converted model into `folder`, whole or not at all. One part is in memory at a time.

    Neither `carry` nor `device` changes a byte.

    Args:
        subject: The original, the file of its captured ranges, and how it is converted.
        plan: What decides the orders of all neurons.
        folder: Folder to write.
        progress: Receives the number of finished parts and the number of all.
        kept: Folder in which finished parts stay until all are finished, so that a killed run resumes at the next part.
            The caller makes sure that it belongs to these inputs alone. None: nothing is kept.
        carry: Converts the parts. None: this process converts them in order.
        device: Device on which terms are made. If it names a GPU without a number, all GPUs of this machine share the
            parts.

    Raises:
        WorkFailed: The disk has no room, or a part that a worker made is not on this machine.
    """
    original, conversion = subject.original, subject.conversion
    expansions = subject.expansions()
    parts = parts_of(original, plan)
    with ExitStack() as stack:
        work = kept or Path(stack.enter_context(scratch_beside(folder)))
        folders = [work / f"{number:05}" for number in range(len(parts))]
        jobs = [
            Job(original.folder, subject.ranges_file, plan, conversion, part, part_folder, number, device)
            for number, (part, part_folder) in enumerate(zip(parts, folders, strict=True))
            if not part_folder.exists()
        ]
        for unfinished in work.glob(".*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        require_free(work, sum(_bytes_of(job) for job in jobs))

        # The workers may see another disk, and then none of them makes this folder.
        with disk_errors_explained(work):
            work.mkdir(parents=True, exist_ok=True)

        def report(done: int) -> None:
            progress(len(parts) - len(jobs) + done, len(parts))

        if carry is not None:
            carry(jobs, report)
        elif len({job.place for job in jobs}) > 1:
            _on_all_devices(jobs, report)
        else:
            _in_order(jobs, original, expansions, report)
        finished = _finished(folders)
        layers = [layer for part in finished for layer in part.layers]
        widths = {path: width for part in finished for path, width in part.widths.items()}
        with folder_that_appears_whole(folder) as partial:
            written = gather_shards(partial, folders)
            copy_along(original.folder, partial)
            write_code(partial, original.architecture)
            unprotected_of = {layer.path: layer.clear for layer in layers}
            write_config(original, partial, plan, widths, unprotected_of, conversion.dtype)
    total, unprotected = sum(layer.neurons for layer in layers), sum(layer.clear for layer in layers)
    return ConvertedModel(
        plan=plan,
        neurons_protected=total - unprotected,
        neurons_total=total,
        bytes=written,
        original_bytes=original.bytes(DTYPES[conversion.dtype]),
        layers=tuple(layers),
    )


def _in_order(jobs: Sequence[Job], original: Original, expansions: Expansions, report: Callable[[int], None]) -> None:
    """Convert every job, one after the other. The next layer is fitted while the terms of a layer are written."""
    paths = [mlp.path for job in jobs for mlp in job.part.mlps]
    with threads_restored(), expansions.fitted_ahead(paths):
        use_threads(1)
        for done, job in enumerate(jobs, start=1):
            _convert_part(job, original, expansions)
            report(done)


def _on_all_devices(jobs: Sequence[Job], report: Callable[[int], None]) -> None:
    """Convert every job on its device. Different devices work at the same time."""
    of_device: dict[torch.device, list[Job]] = {}
    for job in jobs:
        of_device.setdefault(job.place, []).append(job)
    made: SimpleQueue[bool] = SimpleQueue()
    stop = Event()

    def convert_all(share: list[Job]) -> None:
        try:
            for job in share:
                if stop.is_set():
                    return
                convert_part(job)
                made.put(True)
        except BaseException:
            stop.set()
            raise
        finally:
            made.put(False)

    with threads_restored(), ThreadPoolExecutor(len(of_device)) as pool:
        # The whole process has one such setting. If each thread changed and restored it, bytes would change.
        use_threads(1)
        shares = [pool.submit(convert_all, share) for share in of_device.values()]
        done, at_work = 0, len(shares)
        try:
            # Progress is reported from this thread, because the others do not know their run.
            while at_work:
                if made.get():
                    done += 1
                    report(done)
                else:
                    at_work -= 1
        finally:
            stop.set()
        for share in shares:
            share.result()


def convert_part(job: Job) -> None:
    """Write the shards of one part into its folder, whole or not at all. Workers call this."""
    job.require_able()
    subject = Subject(Original(job.source), job.ranges_file, job.conversion)
    _convert_part(job, subject.original, subject.expansions())


def _bytes_of(job: Job) -> int:
    """About how many bytes a part writes."""
    return int(job.part.values) * DTYPES[job.conversion.dtype].itemsize


def _convert_part(job: Job, original: Original, expansions: Expansions) -> None:
    folder, plan, dtype = job.folder, job.plan, DTYPES[job.conversion.dtype]
    layers: list[LayerConversion] = []
    widths: dict[str, list[int]] = {}

    def note(path: str, stacked: Layout) -> None:
        widths[path] = stacked.widths
        layers.append(_summary(path, stacked, expansions.bound(path, plan)))

    # Each job has its own scratch folder: a worker that outlived a killed run may be at work on the same part.
    with disk_errors_explained(folder, _bytes_of(job)), scratch_beside(folder) as scratch:
        partial = Path(scratch) / folder.name
        partial.mkdir()
        tensors = part_tensors(original, expansions, plan, dtype, job.part, note, job.place)
        write_shards(partial, tensors, job.conversion.shard_bytes)
        _Converted(layers=tuple(layers), widths=widths).write(partial / _PART_RECORD)
        try:
            partial.replace(folder)
        except OSError:
            if not folder.exists():
                raise


def _finished(folders: Sequence[Path]) -> list[_Converted]:
    """The record of each part, after all were made."""
    # A listing asks a file server anew. A query for one name may get an answer from before the folder was made.
    stored = {entry.name for entry in folders[0].parent.iterdir()}
    missing = next((folder for folder in folders if folder.name not in stored), None)
    if missing is not None:
        raise WorkFailed(
            f"{missing} was made by a worker but is not on this machine",
            "give the workers and this machine one shared file system for --artifacts and the source",
        )
    return [_Converted.read(folder / _PART_RECORD) for folder in folders]


def _summary(path: str, stacked: Layout, bound: Bound) -> LayerConversion:
    return LayerConversion(
        path=path,
        neurons=len(stacked.permutation),
        clear=stacked.clear,
        columns=len(stacked.neuron),
        mean_order=float(stacked.orders[stacked.orders >= 0].double().mean()),
        max_order=int(stacked.orders.max()),
        truncation=float(bound.truncation),
        rounding=float(bound.rounding),
    )
