"""Parameters of the release flow: what changes from run to run, and the config that a run expects.

The run form of the server shows them. All but `config` have a default that leaves everything as the config says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field

from taylor_ops.config.release import VERSION
from taylor_ops.config.section import REPO_ID
from taylor_ops.config_file.read import LoadedConfig
from taylor_ops.config_file.yaml_lines import SET, parsed
from taylor_ops.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])

_FOLDER = "folder"

Version = Annotated[str, Field(pattern=rf"^({VERSION})?$")]
# The limits are those of the key `latency.target_slowdown`, which a test compares.
Slowdown = Annotated[float, Field(gt=1, le=100)] | None
PublishTo = Annotated[str, Field(pattern=rf"^({_FOLDER}|{REPO_ID.strip('^$')})?$")]
Expected = Annotated[str, Field(pattern=r"^(\S+ \S+ [0-9a-f]{64})?$")]


def as_settings(version: str | None, target_slowdown: float | None, publish_to: str | None) -> dict[str, str]:
    """Fields of the form as dotted keys and YAML values, as `--set` gives them. An empty field gives none."""
    place, value = ("target", _FOLDER) if publish_to == _FOLDER else ("repo_id", publish_to)
    fields = {"version": version, "latency.target_slowdown": target_slowdown, f"publish.{place}": value}
    return {key: json.dumps(value) for key, value in fields.items() if value not in (None, "")}


def as_more(settings: Mapping[str, str]) -> str:
    """Arguments `--set` as the parameter `more` takes them: a YAML text with a line for each.

    Args:
        settings: Dotted keys and YAML values that `read` has accepted.
    """
    values = {key: parsed(text, source=SET)[0].plain() for key, text in settings.items()}
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def expected_of(loaded: LoadedConfig) -> str:
    """Name, version and sha256 of a checked config, as the parameter `expected` takes them."""
    return f"{loaded.config.name} {loaded.config.version} {loaded.sha256}"


def require_expected(loaded: LoadedConfig, expected: str) -> None:
    """Raise `BadInput`, which names both configs, if the config of this worker is not the expected one.

    An empty text accepts any config.
    """
    if expected not in ("", expected_of(loaded)):
        raise BadInput(
            f"the run is to release {_short(expected)}, but {loaded.path} on this worker is "
            f"{_short(expected_of(loaded))}",
            "update the checkout in which the worker runs, then `prefect flow-run retry ID`; "
            "or submit the config of the worker",
        )


def _short(expected: str) -> str:
    name, version, digest = expected.split(" ")
    return f"{name} {version} with sha256 {digest[:12]}"


def release_form(
    config: str,
    version: Version = "",
    target_slowdown: Slowdown = None,
    publish_to: PublishTo = "",
    comment: str = "",
    dry_run: bool = False,
    more: str = "",
    artifacts: str = "artifacts",
    expected: Expected = "",
) -> None:
    """Release the model that a config names. It takes 9 parameters because each is a field of the run form.

    Args:
        config: Path of the YAML release config, relative to the folder in which the worker runs.
        version: Version of the release, such as 1.0.1. If empty, as the config says.
        target_slowdown: Decode time of the bundle divided by the decode time of the original. None is what the config
            says.
        publish_to: `folder`, or another OWNER/NAME for what the config publishes. If empty, as the config says.
        comment: What whoever approves the release should know. The approval shows it.
        dry_run: Only say what would be released.
        more: Further keys of the config, as YAML, such as `latency: {pairs: 9}`. A key that guards the release may be
            tightened, and loosened only if the config lists it under `overridable`.
        artifacts: Folder that receives everything that the release writes.
        expected: Name, version and sha256 of the checked config, which `taylor-release submit` fills in. A worker with
            a different config refuses the run. If empty, the worker releases the config that it has.
    """


def described_by(form: Callable[..., Any]) -> Callable[[F], F]:
    """Give a flow the docstring of a form, from which Prefect reads what each parameter means."""

    def describe(function: F) -> F:
        function.__doc__ = form.__doc__
        return function

    return describe
