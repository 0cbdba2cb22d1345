"""What decides the first stages: the flow runs them, the preflight looks for what resolve and capture left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from taylor_ops.config import ReleaseConfig
from taylor_ops.latency import LatencyRecord, device_description
from taylor_ops.models import processor
from taylor_ops.ranges import CapturedRanges
from taylor_ops.source import ResolvedSource, stamp
from taylor_ops.texts import text_hashes

ELSEWHERE = {"also", "also_pairs", "devices"}
"""Keys of `latency` that say where else the chosen plan is timed, and do not choose it."""


TIMED_ALONE = {"batch_size", "prompt_tokens", "new_tokens", "pairs", "max_pairs", "tolerance", "warmup", "compiled"}
"""Keys of `latency` that say how the audit times what is left of the slowdown."""


def inputs_of_resolve(config: ReleaseConfig, stages: Path) -> dict[str, Any]:
    """Of resolve, which writes below `stages`. Every file of a local source is read for its hash."""
    return {"source": config.source, "files": stamp(config.source), "place": str(stages)}


def inputs_of_capture(config: ReleaseConfig, source: ResolvedSource, device: torch.device) -> dict[str, Any]:
    """Of capture on `device`."""
    return {
        "source": source,
        "texts": text_hashes(config.calibration.texts),
        "calibration": config.calibration,
        "dtype": config.conversion.dtype,
        "device": processor(device),
    }


def inputs_of_calibrate(
    config: ReleaseConfig, source: ResolvedSource, ranges: CapturedRanges, device: torch.device
) -> dict[str, Any]:
    """Of calibrate on `device`."""
    return {
        "source": source,
        "ranges": ranges,
        "conversion": config.conversion,
        "latency": config.latency.model_dump(mode="json", exclude={*ELSEWHERE, "compiled"}),
        "device": device_description(device),
        "seed": config.seed,
    }


def inputs_of_transfer(
    config: ReleaseConfig,
    source: ResolvedSource,
    ranges: CapturedRanges,
    latency: LatencyRecord,
    devices: Sequence[torch.device],
) -> dict[str, Any]:
    """Of transfer to `devices`, that of the calibration first: the plan, not how it was found."""
    chosen_by = {"target_slowdown", "tolerance", "max_trials", "columns", "compiled"}
    return {
        "source": source,
        "ranges": ranges,
        "conversion": config.conversion,
        "plan": latency.plan,
        "layers_measured": latency.layers_measured,
        "latency": config.latency.model_dump(mode="json", exclude=chosen_by),
        "devices": [device_description(device) for device in devices],
        "seed": config.seed,
    }
