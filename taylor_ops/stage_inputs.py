"""What decides the stages resolve and capture: the flow runs them, the preflight looks for what they left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from taylor_ops.config import ReleaseConfig
from taylor_ops.source import ResolvedSource, stamp
from taylor_ops.texts import text_hashes


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
        "device": device.type,
    }
