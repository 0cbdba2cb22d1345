"""The key of one stage of a release, without its work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from flows.run.release_run import ReleaseRun
from taylor_ops.config_file.read import LoadedConfig
from taylor_ops.stages import Stage
from taylor_ops.storage.artifacts import Artifacts


class _Asked(Exception):
    """A stage asked for its record."""


class Keyed(ReleaseRun):
    """A release that does no work: a stage ends with its key."""

    def perform(self, stage: Stage[Any], inputs: Mapping[str, Any], *_given: object, **_named: object) -> NoReturn:
        raise _Asked(stage.key(inputs))


def key_of(stage: Any, loaded: LoadedConfig, *found: Any) -> str:
    """The key of a stage of `flows.tasks.publication` for a config, and for what earlier stages found."""
    try:
        stage.fn(Keyed(loaded, Artifacts(Path("a"))), *found)
    except _Asked as asked:
        return str(asked)
    raise AssertionError("the stage asked for nothing")
