"""Commands that use a Prefect server: deploy, submit, approve, reject."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import (
    CONFIGS,
    By,
    Comment,
    ConfigFile,
    Configs,
    RunId,
    Settings,
    SummaryFile,
    append,
    parse_settings,
)
from taylor_ops.errors import BadInput


def deploy(
    configs: Configs = CONFIGS,
    pool: Annotated[
        str, typer.Option(metavar="NAME", help="Work pool. If it is missing, it is created with type process.")
    ] = "local",
    gpu_slots: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Stages that may use a GPU at once, if no limit is set yet.")
    ] = 1,
    folder: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Folder with code and configs on the workers, if not the current one."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Image, for a pool that starts containers.")
    ] = None,
) -> None:
    """Set up what the server lacks: pool, limit `gpu`, automation, a deployment for each config. Can be repeated.

    A deployment names its config, which the worker reads. A run from `submit` refuses any other than the checked one.
    """
    found = sorted(configs.glob("*.yaml"))
    if not found:
        raise BadInput(f"there is no .yaml file in {configs}", "correct `--configs`")
    from flows.server.deploy import deploy as set_up

    typer.echo("\n".join(set_up(found, pool, gpu_slots, folder, image)))


def submit(
    config: ConfigFile,
    settings: Settings = None,
    artifacts: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Artifacts folder on the worker, if not the default of the flow."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for the end. Exits with 1 if nothing was released.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be released.")] = False,
    markdown: SummaryFile = None,
) -> None:
    """Check a config and run its deployment on the server. A worker with a different config refuses the run."""
    from taylor_ops.config_file.changed import release_preview
    from taylor_ops.config_file.read import read

    overrides = parse_settings(settings or [])
    loaded = read(config, overrides)
    if dry_run:
        text = release_preview([loaded], "This submission")
        append(markdown, text)
        typer.echo(text, nl=False)
        return
    from flows.server.submit import submit as run_on_the_server

    ended = run_on_the_server(config, overrides, artifacts, watch, typer.echo)
    append(markdown, ended.text)
    if not watch:
        typer.echo(f"run {ended.run}: {ended.state}")
    if watch and not ended.completed:
        raise typer.Exit(1)


def approve(run: RunId, by: By, comment: Comment) -> None:
    """Approve a release whose run waits for approval."""
    from flows.server.decision import decide

    decide(run, "approve", by, comment)
    typer.echo(f"run {run} goes on and publishes")


def reject(run: RunId, by: By, comment: Comment) -> None:
    """Reject a release whose run waits for approval. The run ends and publishes nothing."""
    from flows.server.decision import decide

    decide(run, "reject", by, comment)
    typer.echo(f"run {run} ends and publishes nothing")
