"""Withdraw a version from the Hub: remove its tag, say so on card and manifest, and show the version before on request.

The branch `withdrawn/v<version>` keeps the card and the manifest, and keeps the number from being used again. Git keeps
the published files in the history of `main`. Whoever has the hash of a commit can still read it there, and copies that
others made stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from pydantic import SecretStr

from taylor_ops.bundle.manifest import CARD, MANIFEST, below_the_metadata
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.masking import printable
from taylor_ops.publishing.hub import manifest_on, remove_staging, tag_of, text_of, withdrawn_branch
from taylor_ops.publishing.hub_repository import (
    KEPT_BY_THE_HUB,
    References,
    Repository,
    is_stale,
    repository_on_the_hub,
)
from taylor_ops.publishing.retries import Patience
from taylor_ops.signing.keys import SIGNATURE
from taylor_ops.storage.files import canonical_json
from taylor_ops.storage.record import Record

_MAIN = "main"


class Yanked(Record):
    """The result of withdrawing a version.

    Attributes:
        repo_id: Repository, `owner/name`.
        version: The withdrawn version.
        main_shows: The version that `main` shows now, None if it shows no release. It may be the withdrawn version
            itself, with its notice.
        unchanged: The version was withdrawn before, and nothing was left to do.
    """

    repo_id: str
    version: str
    main_shows: str | None
    unchanged: bool


def yank(
    repo_id: str,
    version: str,
    why: str,
    rollback: bool,
    token: SecretStr | None = None,
    patience: Patience | None = None,
) -> Yanked:
    """Withdraw a version.

    Args:
        repo_id: Repository, `owner/name`.
        version: The version to withdraw.
        why: The reason, for readers of the card.
        rollback: If `main` shows the version, show the version before in its place.
        token: Token for the Hub. None: HF_TOKEN or the login of this machine.
        patience: How long to wait for the Hub.

    Raises:
        BadInput: The version does not exist, or there is none before it to roll back to.
        WorkFailed: A step failed. A further run continues, as each step checks what is done already.
    """
    why, tag = " ".join(why.split()), tag_of(version)
    if not why:
        raise BadInput("no reason is given", "tell readers the reason with --why")
    with repository_on_the_hub(repo_id, token, patience) as repository:
        repository.require_writer()
        refs = repository.references()
        branch = withdrawn_branch(tag)
        if tag not in refs.tags and branch not in refs.branches:
            raise BadInput(f"{repo_id} has no version {version}", f"its versions are: {_versions(refs) or 'none'}")
        changed = tag in refs.tags
        shown = _version_on(repository, refs.branches[_MAIN])
        before = _version_before(repository, refs, tag) if shown == version and rollback else None
        if tag in refs.tags:
            _keep_the_notice(repository, branch, refs.tags[tag], version, why)
        if before is not None:
            _show_again(repository, version, *before)
            shown, changed = before[0].removeprefix("v"), True
        elif shown == version:
            changed |= _mark(repository, _MAIN, version, why, keep_all=True)
        if tag in refs.tags:
            repository.change(f"remove the tag {tag}", lambda: _remove_tag(repository, tag))
            if tag in repository.references().tags:
                raise WorkFailed(
                    f"{repo_id}: the Hub says that it removed the tag {tag}, and still has it: the version can be read",
                    "run again; if the error remains, remove the tag on its page",
                )
        changed |= remove_staging(repository, tag)
        return Yanked(repo_id=repo_id, version=version, main_shows=shown, unchanged=not changed)


def _versions(refs: References) -> str:
    return ", ".join(sorted(tag.removeprefix("v") for tag in refs.tags if tag.startswith("v")))


def _keep_the_notice(repository: Repository, branch: str, commit: str, version: str, why: str) -> None:
    repository.change(
        f"make the branch {branch}",
        lambda: repository.api.create_branch(repository.repo_id, branch=branch, revision=commit, exist_ok=True),
    )
    _mark(repository, branch, version, why, keep_all=False)


def _mark(repository: Repository, place: str, version: str, why: str, keep_all: bool) -> bool:
    """Say on card and manifest at `place` that the version is withdrawn. Returns whether this changed anything.

    Without `keep_all` all other files at `place` are removed.
    """

    def commit() -> bool:
        head = repository.head(place)
        manifest = manifest_on(repository, head)
        _require_shown(repository, place, manifest, version)
        if "yanked" in manifest:
            return False
        notice = f"> **Version {manifest['version']} was withdrawn.** {why}"
        new_card = below_the_metadata(text_of(repository, head, CARD), notice).encode()
        listed = manifest["files"] | {CARD: hashlib.sha256(new_card).hexdigest()}
        statements = {key: value for key, value in manifest.items() if key != "signature"}
        new_manifest = canonical_json(statements | {"files": listed, "yanked": {"why": why}}).encode()
        others = [name for name in repository.tree(head) if name not in (CARD, MANIFEST, KEPT_BY_THE_HUB)]
        # The signature goes in any case: it was made for the card and the manifest before this change.
        others = [name for name in others if name == SIGNATURE or not keep_all]
        operations = [
            CommitOperationAdd(CARD, new_card),
            CommitOperationAdd(MANIFEST, new_manifest),
            *(CommitOperationDelete(name, is_folder=False) for name in others),
        ]
        _commit(repository, operations, f"Withdraw v{manifest['version']}", place, head)
        return True

    return repository.change(f"mark {place} as withdrawn", commit)


def _show_again(repository: Repository, version: str, earlier: str, commit: str) -> None:
    """Give `main` the files of `commit`, to which the tag `earlier` points. `main` must show `version`, or them."""

    def put_back() -> None:
        head = repository.head(_MAIN)
        _require_shown(repository, _MAIN, _manifest(repository, head), version, earlier.removeprefix("v"))
        current, target = repository.tree(head), repository.tree(commit)
        copies = [
            CommitOperationCopy(name, name, src_revision=commit)
            for name, file in target.items()
            if name != KEPT_BY_THE_HUB and (name not in current or current[name].blob_id != file.blob_id)
        ]
        removals = [CommitOperationDelete(name, is_folder=False) for name in current if name not in target]
        if copies or removals:
            title = f"Roll back to {earlier}: {tag_of(version)} is withdrawn"
            _commit(repository, [*copies, *removals], title, _MAIN, head)

    repository.change("roll main back", put_back)


def _require_shown(repository: Repository, place: str, manifest: Mapping[str, Any], *versions: str) -> None:
    """Refuse to go on if another process has published meanwhile.

    `manifest` comes from the head that the next commit names as its parent, so nothing can change in between.
    """
    if manifest.get("version") not in versions:
        raise WorkFailed(
            f"{repository.repo_id}: {place} shows {manifest.get('version')} in place of {versions[0]}",
            "another process changed it meanwhile: run again",
        )


def _version_before(repository: Repository, refs: References, tag: str) -> tuple[str, str]:
    """Tag and commit of the version that `main` showed before: the latest one that still has its tag."""
    tagged = {commit: name for name, commit in refs.tags.items() if name.startswith("v") and name != tag}

    def last() -> tuple[str, str] | None:
        history = repository.api.list_repo_commits(repository.repo_id, revision=_MAIN)
        return next(((tagged[past.commit_id], past.commit_id) for past in history if past.commit_id in tagged), None)

    found = repository.ask("read the history of main", last)
    if found is None:
        raise BadInput(
            f"{repository.repo_id} has no version before {tag.removeprefix('v')} to roll back to",
            "withdraw it without --rollback, or publish another version first",
        )
    return found


def _commit(repository: Repository, operations: list[Any], title: str, place: str, head: str) -> None:
    try:
        repository.api.create_commit(
            repository.repo_id, operations, commit_message=title, revision=place, parent_commit=head
        )
    except HfHubHTTPError as error:
        if not is_stale(error):
            raise
        raise WorkFailed(f"{repository.repo_id}: {place} was changed meanwhile", "run again") from None


def _version_on(repository: Repository, commit: str) -> str | None:
    """The version that a commit shows. None if it shows no release."""
    version = _manifest(repository, commit).get("version")
    return printable(version) if isinstance(version, str) else None


def _manifest(repository: Repository, commit: str) -> dict[str, Any]:
    return manifest_on(repository, commit) if MANIFEST in repository.tree(commit) else {}


def _remove_tag(repository: Repository, tag: str) -> None:
    with suppress(RevisionNotFoundError):
        repository.api.delete_tag(repository.repo_id, tag=tag)
