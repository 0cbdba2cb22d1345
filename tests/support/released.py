"""A release in this process, with overrides as `--set` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.parameters import as_more
from flows.release import release
from taylor_ops.releases.record import ReleaseRecord


def released(
    config: Path | str, artifacts: Path, settings: Mapping[str, str] = {}, *, expected: str = ""
) -> ReleaseRecord:
    """Run the flow as `taylor-release run` does, and give the record that it returns."""
    record = release(str(config), more=as_more(settings), artifacts=str(artifacts), expected=expected)
    assert record is not None
    return record
