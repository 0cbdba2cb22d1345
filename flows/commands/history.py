"""Commands about releases that are finished: list, show, diff, index, clean."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.commands.options import ARTIFACTS, Artifacts, AsJson, Name, Version, print_result


def list_releases(artifacts: Artifacts = ARTIFACTS, as_json: AsJson = False) -> None:
    """List what was released: when, from what, by which approval, with which figures."""
    from flows.commands.release_tables import list_table, problems
    from taylor_ops.releases.index import runs
    from taylor_ops.releases.overview import overview

    lines = [overview(run) for run in runs(artifacts)]
    print_result([line.plain() for line in lines], as_json, lambda console: list_table(lines, console.width))
    if not as_json:
        for problem in problems(lines):
            typer.echo(problem)


def show(
    name: Name,
    version: Version,
    artifacts: Artifacts = ARTIFACTS,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of tables.")] = False,
) -> None:
    """Show one release: what was released, and each gate with what it required and found."""
    from flows.commands.release_tables import details
    from taylor_ops.releases.gates import gates
    from taylor_ops.releases.index import run_of
    from taylor_ops.releases.markdown import release_in_markdown

    record = run_of(artifacts, name, version).record()
    if markdown:
        typer.echo(release_in_markdown(record), nl=False)
        return
    print_result(record.plain(), as_json, lambda _: details(record, gates(record)))


def diff(
    name: Name,
    first: Annotated[str, typer.Argument(metavar="FIRST", help="One version.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The other version.", show_default=False)],
    artifacts: Artifacts = ARTIFACTS,
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Show also what is the same. JSON always has all.")] = False,
) -> None:
    """Show in which facts and gates two versions of a release differ."""
    from flows.commands.release_tables import difference_table
    from taylor_ops.releases.comparison import compare
    from taylor_ops.releases.index import run_of

    found = compare(*(run_of(artifacts, name, version).record() for version in (first, second)))
    lines = [difference.plain() for difference in found]
    print_result(lines, as_json, lambda _: difference_table(name, first, second, found, every))


def index(artifacts: Artifacts = ARTIFACTS) -> None:
    """Write index.html into the artifacts folder: all releases with gates, sizes, reports, plots across versions."""
    from taylor_ops.releases.index_page import counted, write_index

    page = write_index(artifacts)
    for one in page.not_shown:
        typer.echo(f"no finished release: {one.place}: {one.cause}")
    typer.echo(f"{page.path}: {counted(page.versions, 'version')} of {counted(len(page.releases), 'release')}")
    if not page.releases:
        typer.echo("nothing was released here yet: `taylor-release run CONFIG` makes a release")


def clean(
    keep: Annotated[
        int,
        typer.Option(
            min=0, metavar="NUMBER", help="How many unpublished runs of each release, and how many caches, stay."
        ),
    ] = 3,
    artifacts: Artifacts = ARTIFACTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old runs that were never published, and old caches, but nothing that a run still needs."""
    from taylor_ops.releases.index import release_folders
    from taylor_ops.releases.retention import clean as remove_old
    from taylor_ops.releases.waiting import waiting
    from taylor_ops.storage.files import size

    noted = [place for place in release_folders(artifacts) if waiting(place)]
    if noted and not dry_run:
        from flows.server.waiting import forget_ended

        for place in noted:
            forget_ended(place)

    found = remove_old(artifacts, keep, dry_run)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
        return
    for path in found.removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {path}")
    for name in found.busy:
        typer.echo(f"left alone: {name}, a run is at work on it or waits for approval")
    typer.echo(f"{size(found.bytes)} {'would be' if dry_run else 'are'} free")
