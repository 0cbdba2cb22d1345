"""Commands that ask something of a Prefect server: deploy, submit, approve, reject."""

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
    pool: Annotated[str, typer.Option(help="Work pool; made as one of processes where it is not there.")] = "local",
    gpu_slots: Annotated[int, typer.Option(min=1, help="Stages that may use a GPU at once, where not set.")] = 1,
    folder: Annotated[str | None, typer.Option(help="Folder of code and configs for workers, where not this.")] = None,
    image: Annotated[str | None, typer.Option(help="Image, for a pool that starts containers.")] = None,
) -> None:
    """Set up what the server lacks: pool, limit `gpu`, automation, a deployment for each config. Can be repeated.

    A deployment names its config, which the worker reads; `submit` has a run refuse any other than it has checked.
    """
    found = sorted(configs.glob("*.yaml"))
    if not found:
        raise BadInput(f"there is no .yaml file in {configs}", "correct `--configs`")
    from flows.server.deploy import deploy as set_up

    typer.echo("\n".join(set_up(found, pool, gpu_slots, folder, image)))


def submit(
    config: ConfigFile,
    settings: Settings = None,
    artifacts: Annotated[str | None, typer.Option(help="Folder on the worker, where not that of the flow.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end; 1 where it is not a release.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be released.")] = False,
    markdown: SummaryFile = None,
) -> None:
    """Check a config and run its deployment on the server; a worker whose config is another one refuses the run."""
    from taylor_ops.config_file.changed import release_preview
    from taylor_ops.config_file.read import read

    overrides = parse_settings(settings or [])
    read(config, overrides)
    if dry_run:
        text = release_preview([config])
        append(markdown, text)
        typer.echo(text, nl=False)
        return
    from flows.server.submit import submit as run_there

    ended = run_there(config, overrides, artifacts, watch, typer.echo)
    append(markdown, ended.text)
    if not watch:
        typer.echo(f"run {ended.run}: {ended.state}")
    if watch and not ended.completed:
        raise typer.Exit(1)


def approve(run: RunId, by: By, comment: Comment) -> None:
    """Approve a release whose run waits for it."""
    from flows.server.decision import decide

    decide(run, "approve", by, comment)
    typer.echo(f"run {run} goes on and publishes")


def reject(run: RunId, by: By, comment: Comment) -> None:
    """Reject a release whose run waits for approval: it ends, and nothing is published."""
    from flows.server.decision import decide

    decide(run, "reject", by, comment)
    typer.echo(f"run {run} ends and publishes nothing")
