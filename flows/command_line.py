"""The command line `taylor-release`: check, plan, run, verify, yank, audit, calibrate, schema.

`operations` and `evidence` have more commands.

Exit status: 0 done, 1 a gate or the work failed, 2 bad input. Errors go to standard error as one line of cause and one
of remedy; a traceback is shown only with --debug.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.evidence import add_evidence
from flows.operations import Artifacts, ConfigFile, Settings, SummaryFile, add_operations, append, parse_settings
from taylor_ops.errors import BadInput, ReleaseError

app = typer.Typer(
    name="taylor-release",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Release protected language models: convert, calibrate, prove, attack, publish.",
)

add_operations(app)
add_evidence(app)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options of every command."""
    os.environ["TAYLOR_RELEASE_TRACEBACKS"] = "show" if debug else "hide"


@app.command()
def check(configs: Annotated[list[Path], typer.Argument(help="YAML release configs.", show_default=False)]) -> None:
    """Validate configs; prints every error at once, with file and line."""
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


@app.command()
def plan(config: ConfigFile, settings: Settings = None, artifacts: Artifacts = Path("artifacts")) -> None:
    """Probe the source and estimate what the release takes and reaches; writes nothing."""
    quiet_tools()
    from taylor_ops.config_file.read import read
    from taylor_ops.preflight.preflight import preflight
    from taylor_ops.summary import preflight_table

    loaded = read(config, parse_settings(settings or []))
    console = Console()
    with console.status("probing the first layers"):
        estimate = preflight(loaded.config, artifacts, lambda _done, _total: None)
    console.print(preflight_table(estimate))


@app.command()
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
    # Loaded now: who has mistaken a key need not wait for it.
    from flows.release import release
    from taylor_ops.releases.markdown import release_in_markdown
    from taylor_ops.summary import summary

    try:
        record = release(str(config), overrides, str(artifacts))
    except ReleaseError as error:
        append(markdown, f"**{error.cause}**\n\n{error.remedy}\n")
        raise
    append(markdown, release_in_markdown(record))
    Console().print(summary(record))


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="Folder, or OWNER/NAME@TAG on the Hub.", show_default=False)],
    public_key: Annotated[Path | None, typer.Option(help="PEM file of the key that must have signed it.")] = None,
    identity: Annotated[str | None, typer.Option(help="Who must have signed it by Sigstore.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Who vouches for that identity.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens/--no-tokens", help="Make the recorded continuations again.")] = True,
) -> None:
    """Verify a bundle: signature, files against the manifest, then the recorded tokens in a clean process."""
    quiet_tools()
    from taylor_ops.publishing.hub_fetch import fetched, reference
    from taylor_ops.signing.signers import signer_named
    from taylor_ops.verification.verify import verify as verify_bundle

    signer = signer_named(public_key, identity, issuer)
    place = None if Path(bundle).exists() else reference(bundle)
    with fetched(place) if place else nullcontext(Path(bundle)) as folder:
        verified = verify_bundle(folder, signer, tokens)
    signed = f"signed by {verified.signed_by}; " if verified.signed_by else ""
    said = f"; {verified.prompts} prompts continued with the {verified.tokens} recorded tokens" if tokens else ""
    typer.echo(f"{bundle}: {signed}{verified.files} files as listed{said}")


@app.command()
def yank(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.", show_default=False)],
    version: Annotated[str, typer.Argument(help="Version to withdraw, such as 1.0.0.", show_default=False)],
    why: Annotated[str, typer.Option(help="What readers have to know; stands on the card.", show_default=False)],
    rollback: Annotated[bool, typer.Option("--rollback", help="Show the version before on main again.")] = False,
) -> None:
    """Withdraw a published version from the Hub: its tag goes, its card and manifest say so."""
    quiet_tools()
    from taylor_ops.publishing.hub_fetch import reference
    from taylor_ops.publishing.withdraw import yank as withdraw

    if reference(repo) is None or "@" in repo:
        raise BadInput(f"`{repo}` is not the name of a repository", "write OWNER/NAME, then the version")
    done = withdraw(repo, version.removeprefix("v"), why, rollback)
    shows = f"main shows {done.main_shows or 'no release'}"
    if done.main_shows == done.version:
        shows = "main shows it still, with a notice"
    typer.echo(f"{repo} {done.version} {'was withdrawn before' if done.unchanged else 'is withdrawn'}; {shows}")


@app.command()
def audit(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", show_default=False)],
    original: Annotated[Path, typer.Option(help="Folder of the original model, to score what is recovered.")],
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="Name of an attack; may be repeated.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
) -> None:
    """Attack a bundle and print what the attacks recover."""
    quiet_tools()
    from taylor_ops.audit.audit import audit as run_attacks
    from taylor_ops.audit.audit import named
    from taylor_ops.conversion.modeling_files import is_bundle
    from taylor_ops.summary import audit_table

    settings = named(attacks)
    if not is_bundle(bundle):
        raise BadInput(f"{bundle} is not the folder of a bundle", "point the command at a bundle")
    if not original.is_dir():
        raise BadInput(f"the original {original} does not exist", "correct `--original`")
    with Console(stderr=True).status("attacking"):
        record = run_attacks(original, bundle, settings, lambda _done, _total: None)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        Console().print(audit_table({attack.attack: attack for attack in record.attacks}))


@app.command()
def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", show_default=False)],
    original: Annotated[Path, typer.Option(help="Folder of the original model, to compare with.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    max_pairs: Annotated[int | None, typer.Option(min=11, help="Most pairs to take, as many as a release.")] = None,
) -> None:
    """Measure the slowdown of a bundle again, on this machine; 1 where it is not as stated for the device."""
    quiet_tools()
    from taylor_ops.machine.devices import device_named
    from taylor_ops.summary import remeasured_table
    from taylor_ops.verification.remeasure import remeasure

    if not original.is_dir():
        raise BadInput(f"the original {original} does not exist", "correct `--original`")
    console = Console()
    with console.status("timing original and bundle in turn"):
        found = remeasure(bundle, original, device_named(device), 0, lambda _done, _total: None, max_pairs)
    console.print(remeasured_table(found))
    if found.as_stated is False:
        raise typer.Exit(1)


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Every key, in words, in place of it.")] = False,
) -> None:
    """Print the JSON Schema of the release config."""
    from taylor_ops.config_file.reference import reference
    from taylor_ops.config_file.schema import schema_text

    typer.echo(reference() if markdown else schema_text(), nl=False)


def quiet_tools() -> None:
    """Settings that keep an embedded Prefect server offline and patient, and libraries from drawing over the log."""
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
    }.items():
        os.environ.setdefault(name, value)


def main() -> None:
    """Entry point: run a command and turn every expected error into two lines and an exit status."""
    quiet_tools()
    try:
        # Without standalone mode click hands the status of `typer.Exit` back instead of leaving with it.
        sys.exit(app(standalone_mode=False) or 0)
    except ReleaseError as error:
        _say(error.cause, error.remedy)
        sys.exit(error.exit_status)
    except typer.TyperException as error:
        if not str(error):
            sys.exit(2)
        _say(str(error), "taylor-release --help lists the commands, taylor-release COMMAND --help their options")
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("stopped; finished stages are kept and reused by the next run", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001
        _say(
            f"unexpected {type(error).__name__}: {error}",
            "run again with --debug before the command; finished stages are reused",
        )
        sys.exit(1)


def _say(cause: str, remedy: str) -> None:
    if os.environ.get("TAYLOR_RELEASE_TRACEBACKS") == "show":
        logging.exception("stopped")
    typer.echo(f"error: {cause}\nremedy: {remedy}", err=True)


if __name__ == "__main__":
    main()
