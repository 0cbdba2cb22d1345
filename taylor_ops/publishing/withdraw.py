"""Withdraw a version from the Hub: its tag goes, its card and manifest say so, and `main` may show the one before.

A branch `withdrawn/v<version>` keeps the card and the manifest, and keeps the number from being used again. Git keeps
what was published in the history of `main`; a commit by its hash can still be read there, as can every copy made.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from pydantic import SecretStr

from taylor_ops.bundle.manifest import CARD, MANIFEST
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.publishing.hub import manifest_on, tag_of, text_of, withdrawn_branch
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
_METADATA = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


class Yanked(Record):
    """What became of a version. main_shows: the version that `main` shows now, None where it shows no release; the
    withdrawn one itself is shown with its notice.

    unchanged: the version had been withdrawn before, and nothing was left to do.
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
    """Withdraw a version; with `rollback`, where `main` shows it, put the version before in its place.

    Raises `BadInput` for a version that is not there, or for a rollback with none before it; `WorkFailed` for what went
    wrong on the way; then run again, each step sees what is done.
    """
    why, tag = " ".join(why.split()), tag_of(version)
    if not why:
        raise BadInput("no reason is given", "say with --why what readers have to know")
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
    """Let card and manifest say that the version is withdrawn; without `keep_all` nothing else is left there.

    Returns whether that was still to be done.
    """

    def commit() -> bool:
        head = repository.head(place)
        manifest = manifest_on(repository, head)
        _require_shown(repository, place, manifest, version)
        if "yanked" in manifest:
            return False
        card = text_of(repository, head, CARD)
        metadata = _METADATA.match(card)
        start = metadata.end() if metadata else 0
        notice = f"\n> **Version {manifest['version']} was withdrawn.** {why}\n\n"
        new_card = (card[:start] + notice + card[start:].lstrip("\n")).encode()
        listed = manifest["files"] | {CARD: hashlib.sha256(new_card).hexdigest()}
        said = {key: value for key, value in manifest.items() if key != "signature"}
        new_manifest = canonical_json(said | {"files": listed, "yanked": {"why": why}}).encode()
        others = [name for name in repository.tree(head) if name not in (CARD, MANIFEST, KEPT_BY_THE_HUB)]
        # A signature goes in any case: it is of what the card and the manifest said before.
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
    """One commit on `main`, where it shows `version`, that makes its files those of an `earlier` tag's commit."""

    def put_back() -> None:
        head = repository.head(_MAIN)
        _require_shown(repository, _MAIN, _manifest(repository, head), version, earlier.removeprefix("v"))
        now, then = repository.tree(head), repository.tree(commit)
        copies = [
            CommitOperationCopy(name, name, src_revision=commit)
            for name, file in then.items()
            if name != KEPT_BY_THE_HUB and (name not in now or now[name].blob_id != file.blob_id)
        ]
        gone = [CommitOperationDelete(name, is_folder=False) for name in now if name not in then]
        if copies or gone:
            title = f"Roll back to {earlier}: {tag_of(version)} is withdrawn"
            _commit(repository, [*copies, *gone], title, _MAIN, head)

    repository.change("roll main back", put_back)


def _require_shown(repository: Repository, place: str, manifest: Mapping[str, Any], *versions: str) -> None:
    """Refuse to go on where another process has published meanwhile; the head that is asked is the one committed to."""
    if manifest.get("version") not in versions:
        raise WorkFailed(
            f"{repository.repo_id}: {place} shows {manifest.get('version')} in place of {versions[0]}",
            "it was changed meanwhile; run again",
        )


def _version_before(repository: Repository, refs: References, tag: str) -> tuple[str, str]:
    """Tag and commit of the version that `main` showed before: the last that is still tagged."""
    tagged = {commit: name for name, commit in refs.tags.items() if name.startswith("v") and name != tag}

    def last() -> tuple[str, str] | None:
        history = repository.api.list_repo_commits(repository.repo_id, revision=_MAIN)
        return next(((tagged[one.commit_id], one.commit_id) for one in history if one.commit_id in tagged), None)

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
    """The version that a commit shows; None where it shows no release."""
    version = _manifest(repository, commit).get("version")
    return version if isinstance(version, str) else None


def _manifest(repository: Repository, commit: str) -> dict[str, Any]:
    return manifest_on(repository, commit) if MANIFEST in repository.tree(commit) else {}


def _remove_tag(repository: Repository, tag: str) -> None:
    with suppress(RevisionNotFoundError):
        repository.api.delete_tag(repository.repo_id, tag=tag)
