"""Sigstore signatures: no key to keep, but an account that an issuer vouches for, and a public log."""

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
"""Environment variable with the identity token of an account. Without it, the platform of the run must give one."""


@dataclass(frozen=True)
class Identity:
    """Who signs.

    Attributes:
        identity: An e-mail address, or the address of a workflow.
        issuer: Address of the issuer that vouches for the identity.
    """

    identity: str
    issuer: str

    @property
    def name(self) -> str:
        """Identity and issuer in one text for people."""
        return f"{self.identity} ({self.issuer})"


def require_able_to_sign(signer: Identity) -> None:
    """Raise `BadInput` if this process cannot sign as `signer`, and `WorkFailed` if Sigstore does not answer.

    A token lasts for minutes, so this cannot tell whether there will be one when the bundle is signed.
    """
    with _explained(f"cannot sign as {signer.name}"):
        _config_of(_token_of(signer))


def sign_as(folder: Path, signer: Identity, name: str) -> None:
    """Sign everything in `folder` as `signer`, and write the signature into it.

    Args:
        folder: Folder to sign.
        signer: Who the signature must be of.
        name: Name of the model in the signature.

    Raises:
        BadInput: There is no usable token, its signature is of somebody else, or HF_HUB_OFFLINE is set.
        WorkFailed: Sigstore fails or does not answer.
    """
    with _explained(f"cannot sign as {signer.name}"):
        signature_made(folder, _config_of(_token_of(signer)), name)
    try:
        require_signed_as(folder, signer)
    except GateRejected as error:
        raise BadInput(
            f"the identity token signs as somebody else, not as {signer.name}: {error.cause}",
            f"correct `publish.signing`, or the token in {TOKEN}",
        ) from error


def require_signed_as(folder: Path, signer: Identity) -> None:
    """Check, over the network, that `folder` holds the files that `signer` signed, and no others.

    Raises:
        GateRejected: The signature is missing, damaged or of somebody else, or files are not as they were signed.
        BadInput: HF_HUB_OFFLINE is set.
        WorkFailed: Sigstore fails or does not answer.
    """
    from model_signing.verifying import Config
    from sigstore.errors import VerificationError

    with _explained(f"cannot verify a signature of {signer.name}"):
        config = Config().use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.issuer)
        try:
            signature_read(folder, config, signer.name)
        except VerificationError as error:
            raise GateRejected(f"{folder} was not signed by {signer.name}: {_line(error)}", NOT_THIS_COPY) from error


def _config_of(token: str) -> Any:
    from model_signing.signing import Config

    return Config().use_sigstore_signer(identity_token=token)


def _token_of(signer: Identity) -> str:
    """An identity token of this process for `signer`, as far as this can be checked before it is used."""
    from sigstore.oidc import IdentityToken, detect_credential

    raw = os.environ.get(TOKEN) or detect_credential()
    if not raw:
        raise BadInput(
            f"cannot sign as {signer.name}: there is no identity token",
            f"set {TOKEN}, or run where the platform gives one (a GitHub workflow with `id-token: write`)",
        )
    token = IdentityToken(raw)
    # A workflow's token names the repository, but its signature names the workflow. `sign_as` compares that afterwards.
    other = token.identity if "@" in token.identity and token.identity != signer.identity else None
    if token.federated_issuer != signer.issuer or other is not None:
        raise BadInput(
            f"cannot sign as {signer.name}: the identity token is of {token.identity} ({token.federated_issuer})",
            f"correct `publish.signing`, or the token in {TOKEN}",
        )
    return str(raw)


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Turn errors of Sigstore and of the network into errors for a person, without the token in them."""
    from requests import RequestException
    from sigstore.errors import Error, NetworkError, TUFError
    from sigstore.oidc import IdentityError, IssuerError

    if constants.is_offline_mode():
        raise BadInput(
            f"{failure}: HF_HUB_OFFLINE is set, and Sigstore is a service",
            "unset HF_HUB_OFFLINE; a key file needs no network",
        )
    try:
        yield
    except ReleaseError:
        raise
    except IdentityError as error:
        raise BadInput(f"{failure}: the identity token is not usable: {_line(error)}", f"set {TOKEN} anew") from error
    except (NetworkError, TUFError, IssuerError, RequestException) as error:
        raise WorkFailed(
            f"{failure}: Sigstore does not answer ({_line(error)})", "check the network, run again"
        ) from error
    except Error as error:
        raise WorkFailed(f"{failure}: {_line(error)}", "run again, with a fresh token") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
