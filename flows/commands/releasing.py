"""Commands from a config to a release: check, schema, plan, run, changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.commands.options import (
    CONFIGS,
    Artifacts,
    AsJson,
    ConfigFile,
    Configs,
    Settings,
    SummaryFile,
    append,
    parse_settings,
    quiet_tools,
)
from taylor_ops.errors import ReleaseError
from taylor_ops.progress import silent


def check(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="YAML release configs.", show_default=False)],
) -> None:
    """Validate configs and print every error at once, with file and line."""
    from taylor_ops.config_file.read import ConfigErrors, read

    lines: list[str] = []
    for config in configs:
        try:
            read(config)
        except ConfigErrors as error:
            lines.extend(error.lines)
    if lines:
        typer.echo("\n".join(lines), err=True)
        raise typer.Exit(2)
    typer.echo(f"{len(configs)} config{'s' if len(configs) > 1 else ''} in order")


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a description of every key in Markdown instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of the release config."""
    from taylor_ops.config_file.reference import reference
    from taylor_ops.config_file.schema import schema_text

    typer.echo(reference() if markdown else schema_text(), nl=False)


def plan(config: ConfigFile, settings: Settings = None, artifacts: Artifacts = Path("artifacts")) -> None:
    """Probe the source and estimate what the release takes and reaches. Writes nothing."""
    quiet_tools()
    from flows.commands.tables import preflight_table
    from taylor_ops.config_file.read import read
    from taylor_ops.preflight.preflight import preflight

    loaded = read(config, parse_settings(settings or []))
    console = Console()
    with console.status("probing the first layers"):
        estimate = preflight(loaded.config, artifacts, silent)
    console.print(preflight_table(estimate))


def run(
    config: ConfigFile,
    settings: Settings = None,
    artifacts: Artifacts = Path("artifacts"),
    markdown: SummaryFile = None,
) -> None:
    """Run the release flow in this process."""
    quiet_tools()
    from taylor_ops.config_file.read import read

    overrides = parse_settings(settings or [])
    read(config, overrides)
    # Loaded only now, so that the error of a mistyped key appears without delay.
    from flows.run.temporary_server import start_temporary_server

    server = start_temporary_server()
    # Takes about as long as the server needs to answer.
    from flows.commands.tables import summary
    from flows.parameters import as_more
    from flows.release import release
    from taylor_ops.releases.markdown import release_in_markdown

    try:
        if server is not None:
            server.wait()
        record = release(str(config), more=as_more(overrides), artifacts=str(artifacts))
        assert record is not None  # only a dry run has none
    except ReleaseError as error:
        append(markdown, f"**{error.cause}**\n\n{error.remedy}\n")
        raise
    append(markdown, release_in_markdown(record))
    Console().print(summary(record))


def changed(
    since: Annotated[str, typer.Option(metavar="COMMIT", help="Commit or branch to compare with.", show_default=False)],
    configs: Configs = CONFIGS,
    as_json: AsJson = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what a merge would release, in Markdown.")] = False,
) -> None:
    """List the configs that changed since a commit: those that a push releases."""
    from taylor_ops.config_file.changed import changed_configs, release_preview
    from taylor_ops.config_file.read import read

    found = changed_configs(since, configs)
    if plan:
        typer.echo(release_preview([read(path) for path in found]), nl=False)
    elif as_json:
        typer.echo(json.dumps([path.as_posix() for path in found]))
    else:
        for path in found:
            typer.echo(path.as_posix())
