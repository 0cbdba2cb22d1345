"""Bring what is published on the Hub to this machine, to verify it as any reader gets it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from taylor_ops.config.section import REPO_ID
from taylor_ops.publishing.hub_repository import KEPT_BY_THE_HUB, repository_on_the_hub
from taylor_ops.publishing.retries import Patience


@dataclass(frozen=True)
class Reference:
    """A repository on the Hub at a revision: a tag, a branch or a commit."""

    repo_id: str
    revision: str


def reference(text: str) -> Reference | None:
    """What `owner/name@revision` names, at `main` without a revision; None for a text of another form."""
    repo_id, _, revision = text.partition("@")
    return Reference(repo_id, revision or "main") if re.match(REPO_ID, repo_id) else None


def fetch(where: Reference, folder: Path, token: SecretStr | None = None, patience: Patience | None = None) -> None:
    """Fill `folder` with the files at a revision; what an interrupted call left there is not fetched again.

    Raises `BadInput` for what is not there or not to be seen, `WorkFailed` for a Hub that does not answer.
    """
    with repository_on_the_hub(where.repo_id, token, patience) as repository:
        repository.ask(
            f"fetch its files at {where.revision}",
            lambda: repository.api.snapshot_download(
                where.repo_id, revision=where.revision, local_dir=folder, ignore_patterns=[KEPT_BY_THE_HUB]
            ),
        )
    shutil.rmtree(folder / ".cache", ignore_errors=True)


@contextmanager
def fetched(where: Reference) -> Iterator[Path]:
    """A folder with the files at a revision, gone with the context."""
    with tempfile.TemporaryDirectory(prefix="taylor-fetched-") as scratch:
        folder = Path(scratch) / where.repo_id.rpartition("/")[2]
        fetch(where, folder)
        yield folder
