"""Arguments that several commands share, and what every command does before and after its work."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console, RenderableType
from typer.core import TyperCommand, TyperGroup, TyperOption

from taylor_ops.errors import BadInput

PROGRAM = "taylor-release"


class Command(TyperCommand):
    """A command whose help names no type beside an option that takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters of the command."""
        return _without_types_of_flags(super().get_params(ctx))


class CommandGroup(TyperGroup):
    """The commands together, with options that are shown as those of a command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters of every command."""
        return _without_types_of_flags(super().get_params(ctx))


def _without_types_of_flags(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
    return params


def paragraphs(command: Callable[..., None]) -> str:
    """The docstring of a command with each paragraph in one line, which the help wraps as wide as the terminal is."""
    text = inspect.cleandoc(command.__doc__ or "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML release config.", show_default=False)]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.", show_default=False)]
Artifacts = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder that receives everything a release writes.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; may be repeated.")
]
SummaryFile = Annotated[
    Path | None,
    typer.Option(
        "--summary", metavar="FILE", help="Append the result in Markdown to this file, such as a job summary."
    ),
]
Configs = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the release configs.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON; `taylor-release schema COMMAND` describes what it holds.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the release.", show_default=False)]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Version of the release.", show_default=False)]
PublicKey = Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file of the key that must have signed it.")]
Identity = Annotated[str | None, typer.Option(metavar="WHO", help="Sigstore identity that must have signed it.")]
Issuer = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Issuer that must vouch for this identity.")]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the bundle's code even if nobody whom you ask for signed it and no version of this project has it.",
    ),
]
Original = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the original model.", show_default=False)]
RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the suspended flow run.", show_default=False)]
By = Annotated[str, typer.Option(metavar="NAME", help="Who decides. The manifest says it.", show_default=False)]
Comment = Annotated[str, typer.Option(metavar="TEXT", help="Why. The manifest says it.", show_default=False)]

ARTIFACTS, CONFIGS = Path("artifacts"), Path("release_configs")


def quiet_tools() -> None:
    """Keep an embedded Prefect server offline and patient, and keep libraries from drawing over the log."""
    for name, value in {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "DASK_LOGGING__DISTRIBUTED": "error",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Looking for plugins in every installed package takes as long as drawing a table.
        "PYDANTIC_DISABLE_PLUGINS": "__all__",
    }.items():
        os.environ.setdefault(name, value)


def parse_settings(settings: list[str]) -> dict[str, str]:
    """`--set` arguments as keys and values. Raises `BadInput` for an argument without `=` or without a key."""
    pairs = [setting.partition("=") for setting in settings]
    wrong = next((key for key, equals, _ in pairs if not equals or not key), None)
    if wrong is not None:
        raise BadInput(
            f"--set {wrong}: no value given", "write --set key=value, such as --set latency.target_slowdown=4"
        )
    return {key: value for key, _, value in pairs}


def append(path: Path | None, text: str) -> None:
    """Append text to a file, if one is named."""
    if path is not None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)


def print_result(value: Any, as_json: bool, shown: Callable[[Console], RenderableType]) -> None:
    """Print a value as JSON, or what `shown` makes of it for this terminal."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        console = Console()
        console.print(shown(console))
