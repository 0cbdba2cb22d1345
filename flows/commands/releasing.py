"""Commands from a model to a release: init, check, schema, plan, run, changed."""

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
    print_result,
    quiet_tools,
)
from taylor_ops.errors import BadInput, ReleaseError
from taylor_ops.progress import silent


def check(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="YAML release configs.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Validate configs: print every error at once, with file and line, and name paths that are missing here."""
    from taylor_ops.config_file.checked import checked

    found = [checked(config) for config in configs]
    mistakes = [mistake.worded for config in found for mistake in config.mistakes]
    missing = [f"{path.worded}: `run` needs it" for config in found for path in config.missing]
    if as_json:
        typer.echo(json.dumps([config.plain() for config in found], indent=2))
    elif mistakes or missing:
        typer.echo("\n".join([*mistakes, *missing]), err=True)
    if mistakes:
        raise typer.Exit(2)
    if not as_json:
        typer.echo(f"{len(configs)} config{'s' if len(configs) > 1 else ''} in order")


def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="OWNER/NAME[@REVISION] on the Hub, a folder, or a GGUF file.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write, which must not exist yet."),
    ] = None,
    artifacts: Artifacts = Path("artifacts"),
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Estimate which target is within reach, as `plan` does.")
    ] = True,
) -> None:
    """Write a first config for a model: commit, architecture, data type, licence, a target within reach."""
    quiet_tools()
    if output is not None and output.exists():
        raise _exists(output)
    from taylor_ops.preflight.first_config import first_config

    with Console(stderr=True).status("looking at the model"):
        text = first_config(model, output.parent if output else Path(), artifacts, silent, probe)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        remedy = "name a file in a folder that exists"
        raise BadInput(f"{output} cannot be written: {error.strerror}", remedy) from error
    typer.echo(f"{output} is written: look through it, then `taylor-release plan {output}`")


def _exists(output: Path) -> BadInput:
    return BadInput(f"{output} exists already and is not overwritten", "name another file, or remove that one")


def schema(
    command: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND", help="A command with --json: print the schema of that.", show_default=False),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a description of every key in Markdown instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of the release config, or of what a command prints with --json."""
    if command is not None:
        if markdown:
            raise BadInput("--markdown describes the config, not a command", "leave out one of them")
        from flows.commands.answers import answer_schema

        typer.echo(json.dumps(answer_schema(command), indent=2))
        return
    from taylor_ops.config_file.reference import reference
    from taylor_ops.config_file.schema import schema_text

    typer.echo(reference() if markdown else schema_text(), nl=False)


def plan(
    config: ConfigFile,
    settings: Settings = None,
    artifacts: Artifacts = Path("artifacts"),
    as_json: AsJson = False,
) -> None:
    """Probe the source and estimate what the release takes and reaches. Writes nothing."""
    quiet_tools()
    from flows.commands.tables import preflight_table
    from taylor_ops.config_file.read import read
    from taylor_ops.preflight.preflight import preflight

    loaded = read(config, parse_settings(settings or []))
    with Console(stderr=True).status("probing the first layers"):
        estimate = preflight(loaded.config, artifacts, silent)
    print_result(estimate.plain(), as_json, lambda _: preflight_table(estimate))


def run(
    config: ConfigFile,
    settings: Settings = None,
    artifacts: Artifacts = Path("artifacts"),
    markdown: SummaryFile = None,
    as_json: AsJson = False,
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
    print_result(record.plain(), as_json, lambda _: summary(record))


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
