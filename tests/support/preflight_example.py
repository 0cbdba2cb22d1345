"""A preflight of a tiny model, and what a terminal shows of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.commands.tables import preflight_table
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.preflight.preflight import preflight
from taylor_ops.preflight.record import Preflight
from tests.taylor_ops.conftest import Sample, silent


def config_of(sample: Sample, **changes: Any) -> ReleaseConfig:
    document: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "source": {"kind": "folder", "path": str(sample.original)},
        "conversion": sample.conversion.model_dump(),
        "latency": {"target_slowdown": 12.0, "prompt_tokens": 4, "min_seconds": 0},
        "card": {"license": "mit"},
        "publish": {"repo_id": "org/tiny"},
        "device": "cpu",
    }
    return ReleaseConfig.model_validate(document | changes)


def estimate(sample: Sample, artifacts: Path, **latency_settings: Any) -> Preflight:
    settings = {"target_slowdown": 12.0, "prompt_tokens": 4, **latency_settings}
    return preflight(config_of(sample, latency=settings), artifacts, silent)


def shown(found: Preflight) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(preflight_table(found))
    return stream.getvalue()
