"""The sections `publish` and `publish.signing` of a release config."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import REPO_ID, LocalPath, Section


class Publish(Section):
    """Where the bundle goes. What is said of access, review and token matters to the target `hub` alone."""

    target: Literal["folder", "hub"] = "folder"
    """`folder` publishes into `hub/REPO_ID/VERSION` below the artifacts folder, `hub` on the Hugging Face Hub."""
    repo_id: str = Field(pattern=REPO_ID)
    """Owner and name under which the bundle appears; the owner is an account or an organisation."""
    signing: Signing | None = None
    """Sign the bundle; readers check it with `taylor-release verify FOLDER --public-key FILE`."""
    approval: bool = False
    """Suspend the run before anything is published, until a person approves or rejects with a comment."""
    private: bool | None = None
    """Whether the repository is private. Without it a new one is private, and one that exists stays as it is."""
    gated: Literal["auto", "manual", False] | None = None
    """Whether readers ask for access first, granted by itself or by hand. Without it that stays as it is."""
    resource_group: str | None = None
    """Resource group of the organisation that a new repository is put into."""
    review: bool = False
    """Leave a pull request for a person to merge, in place of showing the release on `main`."""
    token_secret: str | None = None
    """Name of the Prefect Secret block that holds the token; without it HF_TOKEN or the login of this machine."""


class Signing(Section):
    """With what the bundle is signed (OpenSSF model signing)."""

    method: Literal["key", "sigstore"] = "key"
    """`key` signs with the key in a file. `sigstore` signs as an account that an issuer vouches for, over the network
    and into a public log; such a signature has other bytes each time it is made."""
    key_file: LocalPath | None = Field(default=None, validate_default=True)
    """PEM file with an elliptic curve private key, relative to the config file's folder. Its name goes nowhere; the
    password of an encrypted key is read from the environment variable `TAYLOR_RELEASE_KEY_PASSWORD`."""
    identity: str | None = Field(default=None, pattern=r"^[^\s`|<>]+$", validate_default=True)
    """Of Sigstore: as whom, such as `ann@example.org`, or a workflow by its address. It stands in the manifest."""
    issuer: str | None = Field(default=None, pattern=r"^https://[^\s`|<>]+$", validate_default=True)
    """Of Sigstore: who vouches for that, such as `https://accounts.google.com`. The token is what the platform of the
    run gives, or that in the environment variable `TAYLOR_RELEASE_IDENTITY_TOKEN`."""

    @field_validator("key_file", "identity", "issuer")
    @classmethod
    def _of_its_method(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        needed = "key" if info.field_name == "key_file" else "sigstore"
        if "method" in info.data and (info.data["method"] == needed) != (value is not None):
            raise ValueError(f"is needed where `method` is `{needed}`, and belongs nowhere else")
        return value
