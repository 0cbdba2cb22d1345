"""Signatures by who someone is (Sigstore): no key to keep, an account that an issuer vouches for, and a public log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from taylor_ops.errors import BadInput, GateRejected, ReleaseError, WorkFailed
from taylor_ops.signing.keys import NOT_THIS_COPY, signature_made, signature_read

TOKEN = "TAYLOR_RELEASE_IDENTITY_TOKEN"
"""Environment variable with the token of an account, where the platform of the run gives none."""


@dataclass(frozen=True)
class Identity:
    """Who signs. identity: an e-mail address, or the address of a workflow; issuer: who vouches for it."""

    identity: str
    issuer: str

    @property
    def name(self) -> str:
        """Both, for people."""
        return f"{self.identity} ({self.issuer})"


def require_able_to_sign(who: Identity) -> None:
    """Raise `BadInput` where this process could not sign as `who`, `WorkFailed` where Sigstore does not answer.

    Tokens last for minutes: whether it is still there when the bundle is signed is not known before.
    """
    with _explained(f"cannot sign as {who.name}"):
        _signer(_token_of(who))


def sign_as(folder: Path, who: Identity, name: str) -> None:
    """Write the signature of everything in `folder` into it, made as `who`. name: what it calls the model.

    Raises `BadInput` where it could not be made, or was made as somebody else.
    """
    with _explained(f"cannot sign as {who.name}"):
        signature_made(folder, _signer(_token_of(who)), name)
    try:
        require_signed_as(folder, who)
    except GateRejected as error:
        raise BadInput(
            f"the identity token signs as somebody else than {who.name}: {error.cause}",
            f"correct `publish.signing`, or the token in {TOKEN}",
        ) from error


def require_signed_as(folder: Path, who: Identity) -> None:
    """Check that `folder` holds what `who` signed, and nothing else; over the network, where the root of trust is.

    Raises `GateRejected` for another signature, and for files that are not as they were signed.
    """
    from model_signing.verifying import Config
    from sigstore.errors import VerificationError

    with _explained(f"cannot verify a signature of {who.name}"):
        config = Config().use_sigstore_verifier(identity=who.identity, oidc_issuer=who.issuer)
        try:
            signature_read(folder, config, who.name)
        except VerificationError as error:
            raise GateRejected(f"{folder} was not signed by {who.name}: {_line(error)}", NOT_THIS_COPY) from error


def _signer(token: str) -> Any:
    from model_signing.signing import Config

    return Config().use_sigstore_signer(identity_token=token)


def _token_of(who: Identity) -> str:
    """A token of this process that is one of `who`, as far as can be told before it is used."""
    from sigstore.oidc import IdentityToken, detect_credential

    raw = os.environ.get(TOKEN) or detect_credential()
    if not raw:
        raise BadInput(
            f"cannot sign as {who.name}: there is no identity token",
            f"set {TOKEN}, or run where the platform gives one (a GitHub workflow with `id-token: write`)",
        )
    token = IdentityToken(raw)
    # A workflow's token names the repository, its signature the workflow: that is compared when it is made.
    other = token.identity if "@" in token.identity and token.identity != who.identity else None
    if token.federated_issuer != who.issuer or other is not None:
        raise BadInput(
            f"cannot sign as {who.name}: the identity token is of {token.identity} ({token.federated_issuer})",
            f"correct `publish.signing`, or the token in {TOKEN}",
        )
    return str(raw)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what goes wrong between here and Sigstore into an error for a person, without the token."""
    from requests import RequestException
    from sigstore.errors import Error, NetworkError, TUFError
    from sigstore.oidc import IdentityError, IssuerError

    if constants.is_offline_mode():
        raise BadInput(
            f"{what}: HF_HUB_OFFLINE is set, and Sigstore is a service",
            "unset HF_HUB_OFFLINE; a key file needs no network",
        )
    try:
        yield
    except ReleaseError:
        raise
    except IdentityError as error:
        raise BadInput(f"{what}: the identity token is not usable: {_line(error)}", f"set {TOKEN} anew") from error
    except (NetworkError, TUFError, IssuerError, RequestException) as error:
        raise WorkFailed(
            f"{what}: Sigstore does not answer ({_line(error)})", "check the network, run again"
        ) from error
    except Error as error:
        raise WorkFailed(f"{what}: {_line(error)}", "run again, with a fresh token") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
