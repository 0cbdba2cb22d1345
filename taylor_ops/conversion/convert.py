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
from taylor_ops.source.files import tokenizer_files
from taylor_ops.storage.files import (
    disk_errors_explained,
    folder_that_appears_whole,
    require_free,
    scratch_beside,
)
from taylor_ops.storage.record import Record

_PART_RECORD = "part.json"


class _Converted(Record):
    """What is known of a part that is finished."""

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
    """Write the converted model into `folder`, whole or not at all; one part is in memory at a time.

    kept: folder in which finished layers stay until all are, so that a run that was killed goes on at the next one. It
    belongs to these inputs alone; the caller sees to that. carry: who converts the parts; this process, in order, where
    it is None. device: where terms are made; all GPUs of this machine, a part each, where it names none by number. The
    bytes are the same.
    """
    original, conversion = subject.original, subject.conversion
    expansions = subject.expansions()
    parts = parts_of(original, plan)
    with ExitStack() as stack:
        work = kept or Path(stack.enter_context(scratch_beside(folder)))
        folders = [work / f"{number:05}" for number in range(len(parts))]
        jobs = [
            Job(original.folder, subject.ranges_file, plan, conversion, part, there, number, device)
            for number, (part, there) in enumerate(zip(parts, folders, strict=True))
            if not there.exists()
        ]
        for begun in work.glob(".*"):
            shutil.rmtree(begun, ignore_errors=True)
        require_free(work, sum(_bytes_of(job) for job in jobs))

        # Here, too: where workers see another disk, none of them makes it.
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
        made = _finished(folders)
        layers = [layer for one in made for layer in one.layers]
        widths = {path: width for one in made for path, width in one.widths.items()}
        with folder_that_appears_whole(folder) as partial:
            written = gather_shards(partial, folders)
            tokenizer_files(original.folder, partial)
            write_code(partial, original.architecture)
            clear_of = {layer.path: layer.clear for layer in layers}
            write_config(original, partial, plan, widths, clear_of, conversion.dtype)
    total, clear = sum(layer.neurons for layer in layers), sum(layer.clear for layer in layers)
    return ConvertedModel(
        plan=plan,
        neurons_protected=total - clear,
        neurons_total=total,
        bytes=written,
        original_bytes=original.bytes(DTYPES[conversion.dtype]),
        layers=tuple(layers),
    )


def _in_order(jobs: Sequence[Job], original: Original, expansions: Expansions, report: Callable[[int], None]) -> None:
    """Convert every job, one after the other; the next layer is fitted while the terms of one are written."""
    paths = [mlp.path for job in jobs for mlp in job.part.mlps]
    with threads_restored(), expansions.fitted_ahead(paths):
        use_threads(1)
        for done, job in enumerate(jobs, start=1):
            _convert_part(job, original, expansions)
            report(done)


def _on_all_devices(jobs: Sequence[Job], report: Callable[[int], None]) -> None:
    """Convert every job on its device, and those of different devices at once."""
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
        # The setting is one of the whole process: threads that changed it under each other would change bytes.
        use_threads(1)
        shares = [pool.submit(convert_all, share) for share in of_device.values()]
        done, at_work = 0, len(shares)
        try:
            # Told from this thread, which knows the run that it belongs to.
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
    """Write the shards of one part into its folder, whole or not at all: what a worker does."""
    job.require_able()
    subject = Subject(Original(job.source), job.ranges_file, job.conversion)
    _convert_part(job, subject.original, subject.expansions())


def _bytes_of(job: Job) -> int:
    """About how many bytes are written for a part."""
    return int(job.part.values) * DTYPES[job.conversion.dtype].itemsize


def _convert_part(job: Job, original: Original, expansions: Expansions) -> None:
    folder, plan, dtype = job.folder, job.plan, DTYPES[job.conversion.dtype]
    layers: list[LayerConversion] = []
    widths: dict[str, list[int]] = {}

    def note(path: str, stacked: Layout) -> None:
        widths[path] = stacked.widths
        layers.append(_summary(path, stacked, expansions.bound(path, plan)))

    # A scratch folder of its own: a worker that outlived a killed run may be at work on the same part.
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
    """What is known of each part, all of which were made."""
    # Listing asks a file server anew, where a question for one name may get the answer from before it was made.
    there = {place.name for place in folders[0].parent.iterdir()}
    lost = next((folder for folder in folders if folder.name not in there), None)
    if lost is not None:
        raise WorkFailed(
            f"{lost} was made by a worker but is not on this machine",
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
