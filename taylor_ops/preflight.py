"""Estimate what a release will take and reach, before hours of work: bytes, memory, disk, time, order, slowdown.

Sizes follow from the headers of the files. Orders, slowdown and times come from a probe: a little calibration text
through the layers of a small model or the first ones of a large one, and a candidate of the first layers that is timed
and scaled to all. They are estimates.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from taylor_ops.calibration import Progress, slowdown_of
from taylor_ops.config import HubSource, ReleaseConfig, Source
from taylor_ops.convert import convert_in_memory, expansions_of, mlp_tensors
from taylor_ops.errors import BadInput
from taylor_ops.latency import pairs_of, scaled
from taylor_ops.models import DTYPES, device_named, free_memory, load_original
from taylor_ops.original import Original
from taylor_ops.ranges import capture
from taylor_ops.records import Record
from taylor_ops.source import resolve

_LAYERS = 3
_SMALL_BYTES = 2_000_000_000
_TOKENS = 1024
_PAIRS = 5
_STEPS = 8
# The probe is this uncertain: a target just outside of what it found may still be met.
_DOUBT = 0.15
# A bundle that the probe finds to be no slower is one that the machine was too noisy to time.
_LEAST_COST = 0.01
# Stages that read, copy or hash the bundle once: validate, audit, publish and verify.
_READINGS = 4


class Preflight(Record):
    """What a release is expected to take and reach. seconds: by stage.

    layers_probed of layers: what orders were found on. peak_bytes: of memory where that is free;
    with less, layers are read from disk. reachable: slowdowns of the cheapest and of the dearest plan.
    """

    origin: str
    access: str
    license: str
    neurons: int
    layers: int
    layers_probed: int
    target: float
    reachable: tuple[float, float]
    mean_order: float
    read_bytes: int
    bundle_bytes: int
    disk_needed: int
    disk_free: int
    peak_bytes: int
    memory_free: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Probe:
    """What was found, scaled to all layers. columns, most_columns: of the cheapest and of the dearest plan.

    per_column: what one column more than one a neuron adds to the slowdown. step_seconds: of one decode step of the
    original as the latency is measured, batch_seconds: in a batch of the validation. converted_bytes_per_second: of one
    MLP.
    """

    per_column: float
    columns: int
    most_columns: int
    capture_seconds: float
    step_seconds: float
    batch_seconds: float
    converted_bytes_per_second: float


def preflight(config: ReleaseConfig, artifacts: Path, progress: Progress) -> Preflight:
    """Probe the source of a release and estimate; only a temporary folder is written, and the Hub's cache.

    Raises `BadInput` for a source that cannot be read, a target that cannot be reached and a disk that is too small.
    """
    access = _access(config.source)
    with tempfile.TemporaryDirectory(prefix="taylor-plan-") as scratch:
        start = time.monotonic()
        resolved = resolve(config.source, Path(scratch) / "source", lambda _done, _total: None)
        resolve_seconds = time.monotonic() - start
        original = Original(resolved.folder)
        layers = int(original.config.num_hidden_layers)
        probed = layers if original.bytes(DTYPES["float32"]) <= _SMALL_BYTES else min(layers, _LAYERS)
        probe = _probed(config, original, probed, Path(scratch) / "ranges", progress)
        read = sum(file.stat().st_size for file in resolved.folder.glob("*.safetensors"))
    dtype, hidden = DTYPES[config.conversion.dtype], int(original.config.hidden_size)
    neurons = sum(original.down_values(mlp) for mlp in original.mlps) // hidden
    target, per_column = config.latency.target_slowdown, probe.per_column
    least, most = (1 + per_column * (columns - neurons) for columns in (probe.columns, probe.most_columns))
    _require_reachable(config, least, most)
    columns = min(max(neurons + (target - 1) / per_column, probe.columns), probe.most_columns)
    outside = original.bytes(dtype) - dtype.itemsize * neurons * hidden
    bundle = outside + dtype.itemsize * hidden * int(columns)
    prompts = sum(text.limit or 100 for text in config.exactness.prompts)
    steps = config.exactness.new_tokens * -(-prompts // config.exactness.batch_size)
    writing = bundle / probe.converted_bytes_per_second
    estimate = Preflight(
        origin=resolved.origin,
        access=access,
        license=config.card.license,
        neurons=neurons,
        layers=layers,
        layers_probed=probed,
        target=target,
        reachable=(least, most),
        mean_order=columns / neurons - 1,
        read_bytes=read,
        bundle_bytes=bundle,
        # Converted, and published; the bundle between them is made of links.
        disk_needed=2 * bundle + 2 * config.calibration.tokens * hidden * dtype.itemsize,
        disk_free=shutil.disk_usage(_existing(artifacts)).free,
        peak_bytes=original.bytes(dtype) + bundle,
        memory_free=free_memory(device_named(config.device)),
        seconds={
            "resolve": resolve_seconds,
            "capture": probe.capture_seconds,
            "calibrate": 2 * config.latency.pairs * config.latency.new_tokens * probe.step_seconds * (1 + target),
            "convert": writing,
            "validate": steps * probe.batch_seconds * (2 + target),
            "audit, publish, verify": _READINGS * writing,
        },
    )
    if estimate.disk_free < estimate.disk_needed:
        raise BadInput(
            f"the release needs about {estimate.disk_needed / 1e9:.1f} GB of disk for {artifacts}, "
            f"{estimate.disk_free / 1e9:.1f} GB are free",
            "free space, or give another --artifacts folder",
        )
    return estimate


def _probed(config: ReleaseConfig, original: Original, layers: int, folder: Path, progress: Progress) -> _Probe:
    """Capture `layers` layers, and convert and time the first of them."""
    device, name = device_named(config.device), config.conversion.dtype
    every, timed = int(original.config.num_hidden_layers), min(layers, _LAYERS)
    part = original.first_layers(timed)
    calibration = config.calibration.model_copy(update={"tokens": min(config.calibration.tokens, _TOKENS)})
    start = time.monotonic()
    captured = capture(original.folder, name, calibration, device, folder, progress, layers=layers)
    capture_seconds = (time.monotonic() - start) * every / layers * config.calibration.tokens / calibration.tokens
    expansions = expansions_of(part, folder / captured.file, config.conversion)
    ladder = expansions.ladder()
    start = time.monotonic()
    made = mlp_tensors(part.weights(part.mlps[0]), expansions.layout(part.mlps[0].path, ladder[0]), DTYPES[name])
    converted = sum(tensor.numel() * tensor.element_size() for tensor in made.values()) / (time.monotonic() - start)
    first, second = (load_original(original.folder, name, device, part.config) for _ in range(2))
    candidate = convert_in_memory(second, part, expansions, ladder[0])
    stacked = [expansions.layout(mlp.path, ladder[0]) for mlp in part.mlps]
    extra = sum(len(one.neuron) - len(one.permutation) for one in stacked)
    scale = every / timed
    short = config.latency.model_copy(update={"new_tokens": _STEPS})
    sample = scaled(pairs_of(first, candidate, short, config.seed), first, short, scale)
    pairs = [sample() for _ in range(_PAIRS)]
    batch = short.model_copy(update={"batch_size": config.exactness.batch_size, "prompt_tokens": 16})
    together, _ = scaled(pairs_of(first, candidate, batch, config.seed), first, batch, scale)()
    slowdown, _ = slowdown_of([a for a, _ in pairs], [b for _, b in pairs], config.seed)
    return _Probe(
        per_column=max(_LEAST_COST, slowdown - 1) / (extra * scale),
        columns=round(ladder[0].columns * every / layers),
        most_columns=round(ladder[-1].columns * every / layers),
        capture_seconds=capture_seconds,
        step_seconds=statistics.median(a for a, _ in pairs) / _STEPS,
        batch_seconds=together / _STEPS,
        converted_bytes_per_second=converted,
    )


def _require_reachable(config: ReleaseConfig, least: float, most: float) -> None:
    target = config.latency.target_slowdown
    if least * (1 - _DOUBT) <= target <= most * (1 + _DOUBT):
        return
    raise BadInput(
        f"target slowdown {target:g} cannot be reached: about {least:.2f} to {most:.2f} can, all neurons protected",
        f"set `latency.target_slowdown` inside; for less loosen `conversion.tolerance` from "
        f"{config.conversion.tolerance:g} or narrow `conversion.range_margin` from {config.conversion.range_margin:g}, "
        f"for more raise `conversion.max_order` from {config.conversion.max_order}",
    )


def _access(source: Source) -> str:
    """Who may read the source, in words."""
    if not isinstance(source, HubSource):
        return "local files"
    try:
        info = HfApi().model_info(source.repo_id, revision=source.revision)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        # Whether it can be had at all is for `resolve` to say, which may find it in the cache.
        return "not known: the Hub does not answer"
    licence = (info.card_data or {}).get("license", "none stated")
    return f"{'private' if info.private else 'gated' if info.gated else 'public'}, licence {licence}"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
