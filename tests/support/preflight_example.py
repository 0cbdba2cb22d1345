"""A preflight of a tiny model, and what a terminal shows of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.commands.tables import preflight_table
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.preflight.preflight import preflight
from taylor_ops.preflight.record import Preflight, ProbeSample
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


def example(**changes: Any) -> Preflight:
    """The estimate of a release of a folder, from 1.5 to 9 within reach and from 2 on with every neuron protected."""
    sample = ProbeSample(layers=2, tokens=1024, total_tokens=16384, captured=False, layers_timed=2, pairs=7, busy=False)
    found = Preflight(
        origin="local folder tiny",
        access="local files",
        source_license="mit",
        card_license="mit",
        neurons=96,
        layers=2,
        sample=sample,
        target=3.0,
        reachable=(1.5, 9.0),
        cheapest=2.0,
        cheapest_slowdown=2.0,
        least_protected=1.0,
        protected=1.0,
        mean_order=3.0,
        read_bytes=10,
        to_fetch=0,
        bundle_bytes=30,
        original_bytes=10,
        disk_needed=1,
        disk_free=2,
        peak_bytes=1,
        least_bytes=1,
        memory_free=2,
        seconds={"resolve": 2.4, "capture": 30.0, "transfer": 0.0, "convert": 1000.0},
    )
    return found.model_copy(update=changes)
