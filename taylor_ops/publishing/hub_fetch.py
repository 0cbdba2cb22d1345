"""Fetch a published bundle from the Hub, to verify it as any reader gets it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HFValidationError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id
from pydantic import SecretStr

from taylor_ops.config.section import REPO_ID
from taylor_ops.errors import BadInput, told_as
from taylor_ops.publishing.hub_repository import KEPT_BY_THE_HUB, repository_on_the_hub
from taylor_ops.publishing.retries import Patience


@dataclass(frozen=True)
class Reference:
    """A repository on the Hub at a revision: a tag, a branch or a commit."""

    repo_id: str
    revision: str


def reference(text: str) -> Reference | None:
    """Parse `owner/name@revision`; without a revision it names `main`. None for a text of another form."""
    repo_id, _, revision = text.partition("@")
    if not re.fullmatch(REPO_ID, repo_id):
        return None
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return None
    return Reference(repo_id, revision or "main")


def fetch(where: Reference, folder: Path, token: SecretStr | None = None, patience: Patience | None = None) -> None:
    """Fill `folder` with the files at a revision. Files that an interrupted call left there are not fetched again.

    Raises:
        BadInput: Repository or revision do not exist, or this account does not see them. The error lists the tags.
        WorkFailed: The Hub does not answer.
    """
    with repository_on_the_hub(where.repo_id, token, patience) as repository:

        def download() -> None:
            try:
                repository.api.snapshot_download(
                    where.repo_id, revision=where.revision, local_dir=folder, ignore_patterns=[KEPT_BY_THE_HUB]
                )
            except RevisionNotFoundError as error:
                tags = ", ".join(sorted(repository.references().tags)) or "none"
                raise BadInput(
                    f"{where.repo_id} has no tag, branch or commit {where.revision}", f"its tags are: {tags}"
                ) from error

        repository.ask(f"fetch its files at {where.revision}", download)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


@contextmanager
def fetched(where: Reference) -> Iterator[Path]:
    """A temporary folder with the files at a revision. It is removed when the context ends.

    Errors that are raised meanwhile name the repository in its place.
    """
    with tempfile.TemporaryDirectory(prefix="taylor-fetched-") as scratch:
        folder = Path(scratch) / where.repo_id.rpartition("/")[2]
        with told_as(folder, f"{where.repo_id}@{where.revision}"):
            fetch(where, folder)
            yield folder
