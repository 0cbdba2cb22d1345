"""The section `publish` of a release config: where a bundle goes, and who may see it there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taylor_ops.section import REPO_ID, Section
from taylor_ops.signing_config import Signing


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
