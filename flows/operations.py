"""Commands for those who operate releases: what changed, deploy, submit, approve, reject, list, show, diff, clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console

from taylor_ops.errors import BadInput

ConfigFile = Annotated[Path, typer.Argument(help="YAML release config.", show_default=False)]
Artifacts = Annotated[Path, typer.Option(help="Folder that receives everything a release writes.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; may be repeated.")
]
SummaryFile = Annotated[
    Path | None, typer.Option("--summary", help="Append the result in Markdown to this file, as job summaries are.")
]
Configs = Annotated[Path, typer.Option(help="Folder of the release configs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")]
Name = Annotated[str, typer.Argument(help="Name of the release.", show_default=False)]
Version = Annotated[str, typer.Argument(help="Version of the release.", show_default=False)]
RunId = Annotated[UUID, typer.Argument(help="Id of the suspended flow run.", show_default=False)]
By = Annotated[str, typer.Option(help="Who decides; stands in the manifest.", show_default=False)]
Comment = Annotated[str, typer.Option(help="Why; stands in the manifest.", show_default=False)]

_ARTIFACTS, _CONFIGS = Path("artifacts"), Path("release_configs")


def add_operations(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (changed, deploy, submit, approve, reject, show, diff, clean):
        app.command()(command)
    app.command("list")(list_releases)


def changed(
    since: Annotated[str, typer.Option(help="Commit or branch to compare with.", show_default=False)],
    configs: Configs = _CONFIGS,
    as_json: AsJson = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what a merge would release, in Markdown.")] = False,
) -> None:
    """List the configs that changed since a commit: those that a push releases."""
    from taylor_ops.config_file.changed import changed_configs, plan_of

    found = changed_configs(since, configs)
    if plan:
        typer.echo(plan_of(found), nl=False)
    elif as_json:
        typer.echo(json.dumps([path.as_posix() for path in found]))
    else:
        for path in found:
            typer.echo(path.as_posix())


def deploy(
    configs: Configs = _CONFIGS,
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
    from taylor_ops.config_file.changed import plan_of
    from taylor_ops.config_file.read import read

    overrides = parse_settings(settings or [])
    read(config, overrides)
    if dry_run:
        text = plan_of([config])
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


def list_releases(artifacts: Artifacts = _ARTIFACTS, as_json: AsJson = False) -> None:
    """List what was released: when, from what, by which approval, with which figures."""
    from taylor_ops.release_tables import list_table, overview
    from taylor_ops.releases.index import runs

    lines = [overview(run) for run in runs(artifacts)]
    _print(lines, as_json, lambda: list_table(lines))


def show(
    name: Name,
    version: Version,
    artifacts: Artifacts = _ARTIFACTS,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of tables.")] = False,
) -> None:
    """Show one release: what was released, and each gate with what it required and found."""
    from taylor_ops.release_tables import details
    from taylor_ops.releases.gates import gates
    from taylor_ops.releases.index import run_of
    from taylor_ops.releases.markdown import release_in_markdown

    record = run_of(artifacts, name, version).record()
    if markdown:
        typer.echo(release_in_markdown(record), nl=False)
        return
    _print(record.plain(), as_json, lambda: details(record, gates(record)))


def diff(
    name: Name,
    first: Annotated[str, typer.Argument(help="One version.", show_default=False)],
    second: Annotated[str, typer.Argument(help="The other.", show_default=False)],
    artifacts: Artifacts = _ARTIFACTS,
    as_json: AsJson = False,
) -> None:
    """Compare two versions of a release gate by gate."""
    from taylor_ops.release_tables import difference_table
    from taylor_ops.releases.comparison import compare
    from taylor_ops.releases.index import run_of

    one, two = (run_of(artifacts, name, version).record() for version in (first, second))
    found = compare(one, two)
    lines = [difference.plain() | {"same": difference.same} for difference in found]
    _print(lines, as_json, lambda: difference_table(name, first, second, found))


def clean(
    keep: Annotated[int, typer.Option(min=0, help="How many unpublished runs of each release, and caches, stay.")] = 3,
    artifacts: Artifacts = _ARTIFACTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old runs that were never published, and old caches; never what a run is at work on."""
    from taylor_ops.releases.retention import clean as remove_old
    from taylor_ops.releases.waiting import waiting
    from taylor_ops.storage.files import size

    noted = [stages for stages in sorted(artifacts.glob("*/stages")) if waiting(stages)]
    if noted and not dry_run:
        from flows.server.waiting import forget_ended

        for stages in noted:
            forget_ended(stages)

    found = remove_old(artifacts, keep, dry_run)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
        return
    for path in found.removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {path}")
    for name in found.busy:
        typer.echo(f"left alone: {name}, a run is at work on it or waits for approval")
    typer.echo(f"{size(found.bytes)} {'would be' if dry_run else 'are'} free")


def parse_settings(settings: list[str]) -> dict[str, str]:
    """`--set` arguments as keys and values; `BadInput` for one without `=`."""
    pairs = [setting.partition("=") for setting in settings]
    wrong = next((key for key, equals, _ in pairs if not equals or not key), None)
    if wrong is not None:
        raise BadInput(
            f"--set {wrong}: no value given", "write --set key=value, such as --set latency.target_slowdown=4"
        )
    return {key: value for key, _, value in pairs}


def append(path: Path | None, text: str) -> None:
    """Append text to a file, where one is named."""
    if path is not None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)


def _print(value: Any, as_json: bool, table: Any) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        Console().print(table())
