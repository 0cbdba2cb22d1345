"""Commands about marked copies: mark one for a further recipient, trace whose copy weights come from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.commands.options import AsJson, Identity, Issuer, Original, PublicKey, TrustCode
from taylor_ops.errors import BadInput
from taylor_ops.progress import silent

KeyPlace = Annotated[
    str,
    typer.Option(
        metavar="FILE|VARIABLE",
        help="File with the owner's key, or an environment variable in capitals.",
        show_default=False,
    ),
]


def mark(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle that is not marked.", show_default=False)
    ],
    recipient: Annotated[str, typer.Option(metavar="NAME", help="Who receives the copy.", show_default=False)],
    key: KeyPlace,
    to: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the copy, which must not exist yet.", show_default=False)
    ],
    strength: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Relative change of a marked weight, if not the default of a config."),
    ] = None,
    sign_with: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of the key that signs the copy.")
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="Generate the recorded continuations again.")
    ] = True,
    public_key: PublicKey = None,
    identity: Identity = None,
    issuer: Issuer = None,
    trust_code: TrustCode = False,
) -> None:
    """Mark one recipient's copy of a bundle, and verify it. Needs neither the original nor another conversion.

    The tokens need the bundle's code. It runs if every hash of the bundle is right and it is signed by whom you ask
    for, or is that of a version of this project, in a process without tokens, home and, where Linux allows it, network.

    It takes 11 parameters because a person names each on the command line.
    """
    from taylor_ops.bundle.marked_copy import mark_bundle
    from taylor_ops.config.evidence import STRENGTH
    from taylor_ops.evidence.key import read_key
    from taylor_ops.signing.signers import signer_named
    from taylor_ops.verification.trust import require_trusted_code
    from taylor_ops.verification.verify import verify

    secret, signer = read_key(key), signer_named(public_key, identity, issuer)
    console = Console(stderr=True)
    with console.status("verifying the bundle"):
        signed = verify(bundle, signer, tokens=False).signed_by is not None
        if tokens:
            require_trusted_code(bundle, signed, trust_code)
    with console.status("marking"):
        mark_bundle(bundle, recipient, secret, STRENGTH if strength is None else strength, to, silent, sign_with)
    try:
        with console.status("verifying the copy"):
            verified = verify(to, tokens=tokens, trust_code=signed or trust_code)
    except BaseException:
        # Also if it is stopped by hand, because an unverified copy must not look finished.
        shutil.rmtree(to, ignore_errors=True)
        raise
    continued = f"; {verified.prompts} prompts continued with the {verified.tokens} recorded tokens" if tokens else ""
    typer.echo(f"{to}: copy of {recipient}, {verified.files} files as listed{continued}")


def trace(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS", help="Bundle, model folder, or safetensors file to trace.", show_default=False
        ),
    ],
    original: Original,
    key: KeyPlace,
    recipients: Annotated[
        Path, typer.Option(metavar="FILE", help="File with NAME VERSION on each line.", show_default=False)
    ],
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Version for the lines that name none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whose copy weights come from, with a p-value, or that there is no evidence."""
    from taylor_ops.evidence.key import read_key
    from taylor_ops.evidence.recipients import read_recipients
    from taylor_ops.evidence.trace import in_words
    from taylor_ops.evidence.trace import trace as look

    if not original.is_dir():
        raise BadInput(f"the original {original} does not exist", "correct `--original`")
    secret, candidates = read_key(key), read_recipients(recipients, version)
    with Console(stderr=True).status("tracing"):
        found = look(weights, original, secret, candidates, silent)
    typer.echo(found.model_dump_json(indent=2) if as_json else in_words(found))
