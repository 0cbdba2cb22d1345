"""The sections `publish` and `publish.signing` of a release config."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import LocalPath, RepoId, Section


class Publish(Section):
    """Where the bundle is published. The keys from `private` to `token_secret` matter for the target `hub` alone."""

    target: Literal["folder", "hub"] = "folder"
    """`folder` publishes into `hub/REPO_ID/VERSION` below the artifacts folder. `hub` publishes on the Hugging Face
    Hub."""
    repo_id: RepoId
    """Owner and name under which the bundle appears. The owner is an account or an organisation."""
    signing: Signing | None = None
    """Sign the bundle. Readers check the signature with `taylor-release verify FOLDER --public-key FILE`."""
    approval: bool = False
    """Suspend the run before anything is published, until a person approves or rejects the release with a comment."""
    private: bool | None = None
    """Whether the repository is private. Without this key, a new repository is private and an existing one stays as it
    is."""
    gated: Literal["auto", "manual", False] | None = None
    """Whether readers must ask for access. `auto` grants it without a person, `manual` by hand, and `false` asks for
    nothing. Without this key, the repository stays as it is."""
    resource_group: str | None = None
    """Resource group of the organisation into which a new repository is put."""
    review: bool = False
    """Open a pull request for a person to merge, in place of showing the release on `main` at once."""
    token_secret: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    """Name of the Prefect Secret block that holds the Hub token. Without it, HF_TOKEN or the login of this machine is
    used."""


class Signing(Section):
    """The key or the account that signs the bundle (OpenSSF model signing)."""

    method: Literal["key", "sigstore"] = "key"
    """`key` signs with the key in a file. `sigstore` signs as an account that an issuer vouches for. It needs the
    network, writes into a public log, and makes a signature with other bytes each time. Its identity token is read from
    the environment variable `TAYLOR_RELEASE_IDENTITY_TOKEN`, or else comes from the platform of the run."""
    key_file: LocalPath | None = Field(default=None, validate_default=True)
    """PEM file with an elliptic curve private key, relative to the folder of the config file. The name of the file is
    not published. The password of an encrypted key is read from the environment variable
    `TAYLOR_RELEASE_KEY_PASSWORD`."""
    identity: str | None = Field(default=None, pattern=r"^[^\s`|<>]+$", validate_default=True)
    """For `sigstore`: who signs, such as `ann@example.org`, or a workflow by its address. The manifest states it."""
    issuer: str | None = Field(default=None, pattern=r"^https://[^\s`|<>]+$", validate_default=True)
    """For `sigstore`: who vouches for the identity, such as `https://accounts.google.com`."""

    @field_validator("key_file", "identity", "issuer")
    @classmethod
    def _of_its_method(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        needed = "key" if info.field_name == "key_file" else "sigstore"
        if "method" in info.data and (info.data["method"] == needed) != (value is not None):
            raise ValueError(f"is needed if `method` is `{needed}`, and only then")
        return value
