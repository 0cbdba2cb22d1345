"""Estimate what a release will take and reach, and reject one that cannot succeed, before hours of work.

Sizes follow from the headers of the source. Orders, slowdowns and times follow from a quick probe of it. All of them
are estimates.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from taylor_ops.capture.capture import states_bytes
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.latency.calibrate import MOST_FIXED, most_expected
from taylor_ops.latency.candidates import bytes_side_by_side
from taylor_ops.latency.column_cost import Cost, bytes_of_a_column, cost_of_a_column
from taylor_ops.latency.out_of_reach import out_of_reach
from taylor_ops.latency.transfer import require_devices
from taylor_ops.leaks.sources import require_discreet_source
from taylor_ops.leaks.texts import this_machine
from taylor_ops.machine.devices import DTYPES, device_named, free_memory, room_in
from taylor_ops.model.loading import load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.model.shape import ModelShape
from taylor_ops.preflight.known_source import KnownSource, known_source
from taylor_ops.preflight.lacking import lacking
from taylor_ops.preflight.probe import Orders, Times, orders_of, times_of
from taylor_ops.preflight.record import Preflight, ProbeSample
from taylor_ops.preflight.stage_seconds import seconds_by_stage
from taylor_ops.progress import Progress
from taylor_ops.source.resolve import origin_of
from taylor_ops.source.usable import notes_on
from taylor_ops.storage.files import disk_errors_explained, size
from taylor_ops.tasks.prepare import notes_on_tasks, require_tasks
from taylor_ops.texts.readable import require_readable

# The cost of a bundle is this uncertain, so a target just outside the estimated range may still be met.
_DOUBT = 0.2


def preflight(config: ReleaseConfig, artifacts: Path, progress: Progress) -> Preflight:
    """Read the headers of a source, probe it if its weights are on this machine, and estimate.

    Nothing is written except a temporary folder beside `artifacts`, which is removed at the end.

    Raises:
        BadInput: If the source or a text cannot be read, the target cannot be reached, or disk or memory is too small.
    """
    found, refusal = _estimated(config, artifacts, progress)
    if refusal is not None:
        raise refusal
    _require_room(found, artifacts)
    return found


def estimate(config: ReleaseConfig, artifacts: Path, progress: Progress) -> Preflight:
    """The same, for a config whose target is still to be chosen, and a machine that may be too small.

    Raises:
        BadInput: If the source or a text cannot be read.
    """
    return _estimated(config, artifacts, progress)[0]


def _estimated(config: ReleaseConfig, artifacts: Path, progress: Progress) -> tuple[Preflight, BadInput | None]:
    """The estimate, and the error of a target that cannot be reached."""
    device = device_named(config.device)
    require_devices(config.latency)
    require_tasks(config.exactness.tasks)
    # Before the probe, because everything that it loads and writes is freed before the release begins.
    place = _existing(artifacts.absolute())
    free = _Free(free_memory(device), shutil.disk_usage(place).free)
    with ExitStack() as stack:
        # On the disk of the artifacts, because a GGUF file is dequantised there.
        with disk_errors_explained(place / ".taylor-plan"):
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".taylor-plan-", dir=place)))
        source = known_source(config, artifacts, device, scratch / "source")
        original = source.original
        if not isinstance(original, Original):
            return _judged(config, source, free, None, None, notes_on_tasks(config.exactness.tasks))
        tokenizer = load_tokenizer(original.folder)
        require_readable(config, original, tokenizer)
        require_discreet_source(config, original.folder, this_machine(artifacts, original.folder))
        orders = orders_of(config, original, source, scratch, progress)
        notes = (*notes_on(tokenizer, original.config), *notes_on_tasks(config.exactness.tasks))
        return _judged(config, source, free, orders, times_of(config, original, orders), notes)


class _Free(NamedTuple):
    """Bytes that were free before anything was probed."""

    memory: int
    disk: int


def _judged(
    config: ReleaseConfig,
    source: KnownSource,
    free: _Free,
    orders: Orders | None,
    times: Times | None,
    notes: tuple[str, ...],
) -> tuple[Preflight, BadInput | None]:
    """The estimate, and the error of a target that cannot be reached."""
    original, dtype, device = source.original, DTYPES[config.conversion.dtype], device_named(config.device)
    hidden, layers = int(original.config.hidden_size), int(original.config.num_hidden_layers)
    neurons = sum(original.down_values(mlp) for mlp in original.mlps) // hidden
    by_bytes = cost_of_a_column(original, dtype, device)
    cost = times.cost if times else Cost(by_bytes)
    # Without times, a bundle may also cost what its bytes do if all are read equally fast, plus launches of kernels.
    bounds = times.bounds if times else (cost, Cost(bytes_of_a_column(original, dtype), MOST_FIXED))
    lowest, highest = _orders_by_config(config, original)
    all_protected = orders.columns if orders else (1.0 + lowest) * neurons
    fewest = orders.least_columns if orders else (1.0 + lowest * config.conversion.min_protected) * neurons
    most = orders.most_columns if orders else (1.0 + highest) * neurons
    pinned = config.latency.columns
    least, most = (fewest, most) if pinned is None else (float(pinned), float(pinned))

    reachable = cost.slowdown(least - neurons), cost.slowdown(most - neurons)
    low = min(bound.slowdown(least - neurons) for bound in bounds)
    high = max(bound.slowdown(most - neurons) for bound in bounds)
    doubted = 1 + (low - 1) * (1 - _DOUBT), 1 + (high - 1) * (1 + _DOUBT)
    refusal = _unreachable(config, original, reachable, doubted, by_bytes=source.to_fetch > 0)
    target = config.latency.target_slowdown
    columns = min(max(neurons + cost.extra(target), least), most)
    protected = config.conversion.min_protected
    if columns >= all_protected:
        protected = 1.0
    elif all_protected > fewest:
        # Unprotected neurons are those with the longest series, so a straight line underestimates the protected share.
        protected += (1 - protected) * max(0.0, columns - fewest) / (all_protected - fewest)
    added = dtype.itemsize * hidden
    bundle = original.bytes(dtype) + added * int(columns - neurons)
    # The dearest candidate for which calibration makes room, as its own first estimate has it.
    roomy = min(max(neurons + (most_expected(target) - 1) / by_bytes, least), most)
    found = Preflight(
        origin=origin_of(config.source),
        access=source.access,
        source_license=source.licence,
        card_license=config.card.license,
        neurons=neurons,
        layers=layers,
        sample=_sample(orders, times, source),
        target=target,
        reachable=reachable,
        cheapest=orders.columns / neurons - 1 if orders else None,
        cheapest_slowdown=cost.slowdown(all_protected - neurons),
        least_protected=config.conversion.min_protected,
        protected=protected,
        mean_order=max(columns, all_protected) / neurons - 1,
        read_bytes=source.read_bytes,
        to_fetch=source.to_fetch,
        bundle_bytes=bundle,
        original_bytes=original.bytes(dtype),
        disk_needed=_disk(config, source, bundle, free.memory) + source.to_write,
        disk_free=free.disk,
        peak_bytes=original.bytes(dtype) + bundle,
        least_bytes=bytes_side_by_side(original, roomy, dtype, original.period),
        memory_free=free.memory,
        seconds=seconds_by_stage(config, source, orders, times, bundle) if orders and times else {},
        pinned=pinned is not None,
        warnings=lacking(config, source),
        notes=notes,
        left=source.left and tuple(name for name in source.left if name not in config.card.files),
    )
    return found, refusal


def _orders_by_config(config: ReleaseConfig, original: ModelShape) -> tuple[int, int]:
    """The lowest and the highest order of any plan that the config and the activation allow."""
    degree, conversion = original.activation.degree, config.conversion
    return (degree, degree) if degree is not None else (conversion.order or 1, conversion.max_order)


def _sample(orders: Orders | None, times: Times | None, source: KnownSource) -> ProbeSample | None:
    if orders is None or times is None:
        return None
    return ProbeSample(
        layers=orders.layers,
        tokens=orders.tokens,
        total_tokens=orders.total_tokens,
        captured=source.ranges is not None,
        layers_timed=times.layers,
        pairs=times.pairs,
        busy=times.busy,
    )


def _disk(config: ReleaseConfig, source: KnownSource, bundle: int, memory: int) -> int:
    """Bytes that a release writes: hidden states between layers, and the converted, marked and published model.

    The assembled bundle takes none, because it consists of links. Before it is published, attacks rebuild the original,
    and experts are saved again if `memory` does not hold both the original and the rebuilt model. Validation saves
    experts too, but takes no more than the published bundle does later.
    """
    original, dtype = source.original, DTYPES[config.conversion.dtype]
    states = states_bytes(original, config.calibration.tokens, config.conversion.dtype)
    models = 2 if config.evidence is None else 3
    rebuilt = original.bytes(dtype) if {*config.audit.rebuild} & {*config.audit.attacks} else 0
    # Only fetched files tell whether they store experts one by one.
    if rebuilt and 2 * rebuilt > room_in(memory) and isinstance(original, Original):
        rebuilt += original.saved_again(dtype)
    return states + max(models * bundle, (models - 1) * bundle + rebuilt)


def _unreachable(
    config: ReleaseConfig,
    original: ModelShape,
    reachable: tuple[float, float],
    doubted: tuple[float, float],
    by_bytes: bool,
) -> BadInput | None:
    """The error of an unreachable target, if its band lies outside `doubted`.

    Args:
        config: The config of the release.
        original: The original, of which only the activation counts here.
        reachable: The lowest and the highest estimated slowdown.
        doubted: The same, widened by the uncertainty of the estimate.
        by_bytes: Whether the estimate rests on bytes alone.
    """
    low, high = (config.latency.target_slowdown * (1 + side * config.latency.tolerance) for side in (-1, 1))
    if high < doubted[0] or doubted[1] < low:
        return out_of_reach(config.latency, reachable, config.conversion, original.activation, by_bytes)
    return None


def _require_room(estimate: Preflight, artifacts: Path) -> None:
    if estimate.disk_free < estimate.disk_needed:
        raise BadInput(
            f"the release needs about {size(estimate.disk_needed)} of disk for {artifacts}, "
            f"{size(estimate.disk_free)} are free",
            "free space, or give another --artifacts folder",
        )
    room = room_in(estimate.memory_free)
    if room < estimate.least_bytes:
        raise BadInput(
            f"the release needs at least about {size(estimate.least_bytes)} of memory for weights, but it may take "
            f"only {size(room)} of the {size(estimate.memory_free)} that are free",
            "end other programs, or run on a machine with more memory",
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest folder above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
