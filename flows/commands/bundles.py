"""Commands on a finished bundle: verify, audit, calibrate, yank."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.commands.options import AsJson, Bundle, Identity, Issuer, Original, PublicKey, TrustCode, quiet_tools
from taylor_ops.errors import BadInput
from taylor_ops.progress import silent


def verify(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Folder, or OWNER/NAME@TAG on the Hub.", show_default=False)
    ],
    public_key: PublicKey = None,
    identity: Identity = None,
    issuer: Issuer = None,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="Generate the recorded continuations again.")
    ] = True,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle: signature, files and attestations, then the recorded tokens in a clean process.

    The tokens need the bundle's code. It runs if every hash is right and it is signed by whom you ask for, or is that
    of a version of this project, in a process without tokens, home and, where Linux allows it, network.
    """
    quiet_tools()
    from taylor_ops.publishing.hub_fetch import fetched, reference
    from taylor_ops.signing.signers import signer_named
    from taylor_ops.verification.verify import verify as verify_bundle

    signer = signer_named(public_key, identity, issuer)
    place = None if Path(bundle).exists() else reference(bundle)
    with fetched(place) if place else nullcontext(Path(bundle)) as folder:
        verified = verify_bundle(folder, signer, tokens, trust_code=trust_code)
    if as_json:
        typer.echo(verified.model_dump_json(indent=2))
        return
    signed = f"signed by {verified.signed_by}; " if verified.signed_by else ""
    continued = f"; {verified.prompts} prompts continued with the {verified.tokens} recorded tokens" if tokens else ""
    attested = f"; {verified.attestations} attestations hold" if verified.attestations else ""
    typer.echo(f"{bundle}: {signed}{verified.files} files as listed{attested}{continued}")


def audit(
    bundle: Bundle,
    original: Original,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", metavar="NAME", help="Name of an attack; may be repeated.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack a bundle and print what the attacks recover."""
    quiet_tools()
    from flows.commands.tables import audit_table
    from taylor_ops.audit.audit import audit as run_attacks
    from taylor_ops.audit.audit import named
    from taylor_ops.conversion.modeling_files import is_bundle

    settings = named(attacks)
    if not is_bundle(bundle):
        raise BadInput(f"{bundle} is not the folder of a bundle", "point the command at a bundle")
    if not original.is_dir():
        raise BadInput(f"the original {original} does not exist", "correct `--original`")
    with Console(stderr=True).status("attacking"):
        record = run_attacks(original, bundle, settings, silent)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        Console().print(audit_table({attack.attack: attack for attack in record.attacks}))


def calibrate(
    bundle: Bundle,
    original: Original,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    max_pairs: Annotated[
        int | None,
        typer.Option(min=11, metavar="NUMBER", help="Most pairs to take, by default as many as `latency.max_pairs`."),
    ] = None,
    public_key: PublicKey = None,
    identity: Identity = None,
    issuer: Issuer = None,
    trust_code: TrustCode = False,
) -> None:
    """Measure the slowdown of a bundle again on this machine. Exits with 1 if it is not as stated for the device.

    The bundle is verified first. Its code then runs as `verify` runs it: in a process without tokens, home and, where
    Linux allows it, network.
    """
    quiet_tools()
    from flows.commands.tables import remeasured_table
    from taylor_ops.machine.devices import device_named
    from taylor_ops.signing.signers import signer_named
    from taylor_ops.verification.apart import remeasured_apart
    from taylor_ops.verification.trust import require_trusted_code
    from taylor_ops.verification.verify import verify as verify_bundle

    if not original.is_dir():
        raise BadInput(f"the original {original} does not exist", "correct `--original`")
    device_named(device)
    signer, console = signer_named(public_key, identity, issuer), Console()
    with console.status("verifying the files of the bundle"):
        verified = verify_bundle(bundle, signer, tokens=False)
        require_trusted_code(bundle, verified.signed_by is not None, trust_code)
    with console.status("timing original and bundle in turn"):
        found = remeasured_apart(bundle, original, device, max_pairs)
    console.print(remeasured_table(found))
    if found.as_stated is False:
        raise typer.Exit(1)


def yank(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub.", show_default=False)],
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version to withdraw, such as 1.0.0.", show_default=False)
    ],
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="What readers have to know. The card says it.", show_default=False)
    ],
    rollback: Annotated[bool, typer.Option("--rollback", help="Show the previous version on main again.")] = False,
) -> None:
    """Withdraw a published version from the Hub: remove its tag and say so on its card and in its manifest."""
    quiet_tools()
    from taylor_ops.publishing.hub_fetch import reference
    from taylor_ops.publishing.withdraw import yank as withdraw

    if reference(repo) is None or "@" in repo:
        raise BadInput(f"`{repo}` is not the name of a repository", "write OWNER/NAME, then the version")
    done = withdraw(repo, version.removeprefix("v"), why, rollback)
    shows = f"main shows {done.main_shows or 'no release'}"
    if done.main_shows == done.version:
        shows = "main still shows it, with a notice"
    typer.echo(f"{repo} {done.version} {'was withdrawn before' if done.unchanged else 'is withdrawn'}; {shows}")
