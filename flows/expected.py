"""What a run is expected to release: noted by who checked the config, refused where the worker's is another one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taylor_ops.config_file.read import LoadedConfig
from taylor_ops.errors import BadInput

Expected = Annotated[str, Field(pattern=r"^(\S+ \S+ [0-9a-f]{64})?$")]


def expected_of(loaded: LoadedConfig) -> str:
    """Name, version and sha256 of a config that was checked, as the parameter `expected` takes them."""
    return f"{loaded.config.name} {loaded.config.version} {loaded.sha256}"


def require_expected(loaded: LoadedConfig, expected: str) -> None:
    """Raise `BadInput`, with both configs and the remedy, where the config of this worker is not the expected one.

    An empty text expects nothing.
    """
    if expected not in ("", expected_of(loaded)):
        raise BadInput(
            f"the run is to release {_short(expected)}, but {loaded.path} on this worker is "
            f"{_short(expected_of(loaded))}",
            "update the checkout in which the worker runs, then `prefect flow-run retry ID`; or submit what it has",
        )


def _short(expected: str) -> str:
    name, version, digest = expected.split(" ")
    return f"{name} {version} with sha256 {digest[:12]}"
