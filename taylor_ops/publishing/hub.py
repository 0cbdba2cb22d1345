"""Publish a bundle on the Hub: a reader of `main` or of a tag sees the release before, or all of this one.

Files go to a staging branch and are verified there by the Hub's hashes. One commit on `main` then shows all of them. It
names the commit that it follows, so that the Hub refuses one of two processes that publish at once. The tag comes last.
Each step checks what the Hub has before it acts. So a step whose answer was lost can be repeated, and so can a run that
died.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from pydantic import SecretStr

from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.config.publish import Publish
from taylor_ops.errors import GateRejected, WorkFailed
from taylor_ops.progress import Progress
from taylor_ops.publishing.hub_repository import (
    KEPT_BY_THE_HUB,
    Cargo,
    Repository,
    Tree,
    cargo_of,
    differing,
    is_stale,
    repository_on_the_hub,
)
from taylor_ops.publishing.record import Published, other_bytes
from taylor_ops.publishing.retries import Patience
from taylor_ops.storage.files import canonical_json

_SENT_AT_ONCE = 5
_MAIN = "main"


def publish_to_hub(
    where: Publish,
    bundle: Path,
    files: Mapping[str, str],
    version: str,
    token: SecretStr | None,
    progress: Progress,
    patience: Patience | None = None,
) -> Published:
    """Publish a bundle as `v<version>` of a repository on the Hub.

    A version that is published with the same bytes is left as it is.

    Args:
        where: Section `publish` of the config.
        bundle: Folder of the bundle.
        files: sha256 of every file of the bundle. Nothing else is sent.
        version: Version of the release.
        token: Token for the Hub. None: HF_TOKEN or the login of this machine.
        progress: Receives the bytes that have arrived at the Hub, and all bytes.
        patience: How long to wait for the Hub.

    Raises:
        BadInput: The token or a setting does not allow it.
        GateRejected: The version is published with other bytes, or was withdrawn.
        WorkFailed: Anything else went wrong. A further run continues.
    """
    cargo, tag = cargo_of(bundle, files), tag_of(version)
    with repository_on_the_hub(where.repo_id, token, patience) as repository:
        account = repository.require_writer()
        repository.create(where)
        refs = repository.references()
        commit, unchanged = refs.tags.get(tag), tag in refs.tags
        # Even if the tag still exists: the withdrawal was interrupted.
        if withdrawn_branch(tag) in refs.branches:
            raise GateRejected(f"{where.repo_id} {version} was withdrawn", "raise `version` in the config")
        if commit is not None:
            _refuse_other_bytes(repository.tree(commit), cargo, where.repo_id, version)
            repository.set_access(where)
        else:
            base = refs.branches[_MAIN]
            shown = repository.tree(base)
            differs = differing(shown, cargo)
            if differs:
                _refuse_same_version(repository, base, shown, cargo, version)
            # Only now, so that a refused release does not change who may see the repository.
            repository.set_access(where)
            if differs:
                if where.review:
                    return _left_for_review(repository, account, cargo, version, progress)
                staging = _staging_branch(tag, cargo)
                _make_branch(repository, staging, base)
                _bring(repository, staging, cargo, version, progress)
                commit = _show(repository, staging, base, cargo, version)
            else:
                commit = base
            _tag(repository, tag, commit, cargo, version)
        remove_staging(repository, tag)
        return Published(
            target="hub",
            repo_id=where.repo_id,
            version=version,
            path=f"{repository.url}/tree/{tag}",
            unchanged=unchanged,
            commit=commit,
        )


def tag_of(version: str) -> str:
    """The tag of a version."""
    return f"v{version}"


def withdrawn_branch(tag: str) -> str:
    """The branch that keeps the notice of a withdrawn version, and keeps its number from being used again."""
    return f"withdrawn/{tag}"


def manifest_on(repository: Repository, commit: str) -> dict[str, Any]:
    """The manifest in a commit, with its list of files. Raises `WorkFailed` if it is not a manifest."""
    try:
        manifest = json.loads(text_of(repository, commit, MANIFEST))
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise WorkFailed(f"{repository.repo_id}: {MANIFEST} at {commit[:12]} is no manifest", "repair it on its page")
    return manifest


def text_of(repository: Repository, commit: str, name: str) -> str:
    """A text file in a commit."""

    def fetched() -> str:
        with tempfile.TemporaryDirectory(prefix="taylor-text-") as scratch:
            path = repository.api.hf_hub_download(repository.repo_id, name, revision=commit, local_dir=scratch)
            return Path(path).read_text(encoding="utf-8")

    return repository.ask(f"read its {name}", fetched)


def _refuse_other_bytes(stored: Tree, cargo: Cargo, repo_id: str, version: str) -> None:
    names = differing(stored, cargo)
    if names:
        raise other_bytes(repo_id, version, names)


def _refuse_same_version(repository: Repository, base: str, shown: Tree, cargo: Cargo, version: str) -> None:
    """Refuse other bytes for a version that `main` shows: it is published, even if its run died before the tag."""
    if MANIFEST in shown and manifest_on(repository, base).get("version") == version:
        _refuse_other_bytes(shown, cargo, repository.repo_id, version)


def _staging_branch(tag: str, cargo: Cargo) -> str:
    """The name of a branch for these bytes alone, so that nobody who sends others of the same version interferes."""
    content = canonical_json({name: piece.sha256 for name, piece in cargo.items()})
    return f"staging/{tag}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _make_branch(repository: Repository, branch: str, base: str) -> None:
    repository.change(
        f"make the branch {branch}",
        lambda: repository.api.create_branch(repository.repo_id, branch=branch, revision=base, exist_ok=True),
    )


def _bring(repository: Repository, place: str, cargo: Cargo, version: str, progress: Progress) -> None:
    """Make the files at a branch or pull request those of the bundle: send the missing ones, and verify all."""
    total = sum(piece.path.stat().st_size for piece in cargo.values())
    absent = [name for name in differing(repository.tree(place), cargo) if name in cargo]
    additions = {name: _addition(cargo, name) for name in sorted(absent, key=lambda n: cargo[n].path.stat().st_size)}
    done = total - sum(cargo[name].path.stat().st_size for name in absent)
    progress(done, total)
    waiting = list(additions)
    while waiting:
        batch, waiting = waiting[:_SENT_AT_ONCE], waiting[_SENT_AT_ONCE:]
        _send(repository, place, [additions[name] for name in batch])
        done += sum(cargo[name].path.stat().st_size for name in batch)
        progress(done, total)

    def commit() -> None:
        tree = repository.tree(place)
        names = differing(tree, cargo)
        operations = [additions.get(name) or _addition(cargo, name) for name in names if name in cargo]
        if names:
            repository.api.create_commit(
                repository.repo_id,
                [*operations, *_removals(tree, cargo)],
                commit_message=f"Release {tag_of(version)}",
                revision=place,
            )

    repository.change(f"write to {place}", commit)
    wrong = differing(repository.tree(place), cargo)
    if wrong:
        raise WorkFailed(
            f"{repository.repo_id}: {wrong[0]} arrived at {place} with other bytes than were sent; nothing was "
            "published",
            "run again; if the error remains, another process may be writing there",
        )


def _send(repository: Repository, place: str, additions: list[CommitOperationAdd]) -> None:
    names = sorted(addition.path_in_repo for addition in additions)
    repository.change(
        f"send {', '.join(names)}",
        lambda: repository.api.preupload_lfs_files(
            repository.repo_id, additions, revision=place, num_threads=_SENT_AT_ONCE, free_memory=False
        ),
    )


def _addition(cargo: Cargo, name: str) -> CommitOperationAdd:
    addition = CommitOperationAdd(name, cargo[name].path)
    addition.upload_info.sha256 = bytes.fromhex(cargo[name].sha256)
    return addition


def _removals(tree: Tree, cargo: Cargo) -> Iterable[CommitOperationDelete]:
    return [CommitOperationDelete(name, is_folder=False) for name in tree if name not in {*cargo, KEPT_BY_THE_HUB}]


def _show(repository: Repository, staging: str, base: str, cargo: Cargo, version: str) -> str:
    """Make the one commit on `main` that shows the release, from the files that were verified on `staging`."""
    verified = repository.tree(staging)

    def commit() -> str:
        head = repository.head(_MAIN)
        tree = repository.tree(head)
        names = differing(tree, cargo)
        if not names:
            return head
        if head != base:
            raise _outrun(repository, version)
        large = [name for name in names if name in cargo and verified[name].lfs]
        copies = [CommitOperationCopy(name, name, src_revision=staging) for name in large]
        additions = [_addition(cargo, name) for name in names if name in cargo and name not in large]
        try:
            created = repository.api.create_commit(
                repository.repo_id,
                [*copies, *additions, *_removals(tree, cargo)],
                commit_message=f"Release {tag_of(version)}",
                revision=_MAIN,
                parent_commit=base,
            )
        except HfHubHTTPError as error:
            if not is_stale(error):
                raise
            head = repository.head(_MAIN)
            if differing(repository.tree(head), cargo):
                raise _outrun(repository, version) from None
            return head
        return str(created.oid)

    shown = repository.change("write to main", commit)
    if differing(repository.tree(shown), cargo):
        raise WorkFailed(f"{repository.repo_id}: `main` does not show the sent files", "roll it back on its page")
    return shown


def _outrun(repository: Repository, version: str) -> WorkFailed:
    return WorkFailed(
        f"{repository.repo_id}: another process changed `main` while {version} was sent; its change was kept",
        "run again: files that arrived are not sent again",
    )


def _tag(repository: Repository, tag: str, commit: str, cargo: Cargo, version: str) -> None:
    repository.change(
        f"make the tag {tag}",
        lambda: repository.api.create_tag(repository.repo_id, tag=tag, revision=commit, exist_ok=True),
    )
    _refuse_other_bytes(repository.tree(tag), cargo, repository.repo_id, version)


def remove_staging(repository: Repository, tag: str) -> bool:
    """Remove the staging branches of a version, and look whether they are gone. Returns whether there were any."""
    found = _staging_branches(repository, tag)
    for branch in found:
        repository.change(f"remove the branch {branch}", partial(_remove, repository, branch))
    left = _staging_branches(repository, tag) if found else []
    if left:
        raise WorkFailed(
            f"{repository.repo_id}: the Hub says that it removed the branch {left[0]}, and still has it",
            "run again; if the error remains, remove the branch on its page",
        )
    return bool(found)


def _staging_branches(repository: Repository, tag: str) -> list[str]:
    # A prefix would not do: v1.0.0 is a prefix of v1.0.0-rc1 too.
    ours = re.compile(rf"staging/{re.escape(tag)}-[0-9a-f]{{12}}")
    return [branch for branch in repository.references().branches if ours.fullmatch(branch)]


def _remove(repository: Repository, branch: str) -> None:
    with suppress(RevisionNotFoundError):
        repository.api.delete_branch(repository.repo_id, branch=branch)


def _left_for_review(repository: Repository, account: str, cargo: Cargo, version: str, progress: Progress) -> Published:
    """Send the release to a pull request, that of an earlier run if there is one, and open it for review."""
    title, api, repo_id = f"Release {tag_of(version)}", repository.api, repository.repo_id

    def opened() -> int:
        pulls = api.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open")
        mine = next((pull.num for pull in pulls if pull.title == title and pull.author == account), None)
        return int(mine if mine is not None else api.create_pull_request(repo_id, title=title).num)

    number = repository.change("open a pull request", opened)
    place = f"refs/pr/{number}"
    unchanged = not differing(repository.tree(place), cargo)
    if not unchanged:
        _bring(repository, place, cargo, version, progress)

    def open_for_review() -> None:
        if api.get_discussion_details(repo_id, number).status == "draft":
            api.change_discussion_status(repo_id, number, "open")

    repository.change(f"open pull request {number} for review", open_for_review)
    return Published(
        target="hub",
        repo_id=repo_id,
        version=version,
        path=f"{repository.url}/discussions/{number}",
        unchanged=unchanged,
        commit=repository.head(place),
        pull_request=number,
    )
