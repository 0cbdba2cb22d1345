"""Parameters of the release flow: overrides of the config, and what a worker is expected to have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Annotated, Any, TypeVar

from pydantic import Field, WithJsonSchema

from taylor_ops.config_file.read import LoadedConfig
from taylor_ops.config_file.schema import schema
from taylor_ops.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])


def overrides_schema() -> dict[str, Any]:
    """JSON Schema of a partial config: every key of `ReleaseConfig`, none of them required, and no references."""
    full = deepcopy(schema())
    definitions = full.pop("$defs")
    full.pop("$schema")
    partial: dict[str, Any] = _nothing_required(_inlined(full, definitions))
    return partial | {
        "title": "Overrides",
        "description": "Keys of the config with other values, such as latency: {target_slowdown: 4}.",
    }


def as_settings(overrides: Mapping[str, Any] | None) -> dict[str, str]:
    """Overrides as dotted keys and YAML values, as `--set` gives them.

    Text at the top level is YAML already, because it comes from `--set`. Values in a section come typed, from a form.
    """
    settings: dict[str, str] = {}
    for key, value in (overrides or {}).items():
        settings |= {key: value} if isinstance(value, str) else _below(key, value)
    return settings


def _below(key: str, value: Any) -> dict[str, str]:
    if not _merged(value):
        return {key: json.dumps(value)}
    return {below: text for name, part in value.items() for below, text in _below(f"{key}.{name}", part).items()}


def as_overrides(keys: Iterable[str], document: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `as_settings`: the values that dotted `keys` have in a config, typed and in their sections.

    The server can validate such overrides. If a key names an item of a list, the whole list is taken.
    """
    overrides: dict[str, Any] = {}
    for key in keys:
        place, found = overrides, document
        section, *below = key.split(".")
        while below and _merged(found[section]):
            place, found = place.setdefault(section, {}), found[section]
            section, *below = below
        place[section] = found[section]
    return overrides


def _merged(value: Any) -> bool:
    """Whether a value is a section whose keys are replaced one by one.

    A source is of one of several kinds. It is replaced as a whole, because keys of another kind would be left in it.
    """
    return isinstance(value, Mapping) and "kind" not in value


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    named = part.get("$ref", "").rpartition("/")[2]
    inlined = {**definitions.get(named, {}), **{key: value for key, value in part.items() if key != "$ref"}}
    # A discriminator names the members of a union by references, which are gone. The `kind` of each member suffices.
    inlined.pop("discriminator", None)
    return {key: _inlined(value, definitions) for key, value in inlined.items()}


def _nothing_required(part: Any) -> Any:
    """A section without required keys and defaults. Items of lists and members of unions stay as they are."""
    kept = {key: value for key, value in part.items() if key not in ("required", "default")}
    if "properties" in kept:
        kept["properties"] = {key: _nothing_required(value) for key, value in kept["properties"].items()}
    return kept


Overrides = Annotated[dict[str, Any], WithJsonSchema(overrides_schema())]


Expected = Annotated[str, Field(pattern=r"^(\S+ \S+ [0-9a-f]{64})?$")]


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
    overrides: Overrides = {},  # noqa: B006
    artifacts: str = "artifacts",
    expected: Expected = "",
) -> None:
    """Release the model that a config names.

    Args:
        config: Path of the YAML release config, relative to the folder in which the worker runs.
        overrides: Keys of the config that have other values in this run.
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
