"""Read and change one repository on the Hub as one account, with retries and with errors for a person."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import hf_raise_for_status
from huggingface_hub.utils import logging as client_logging
from huggingface_hub.utils._http import default_client_factory
from pydantic import SecretStr

from taylor_ops.config.publish import Publish
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.masking import note_secret
from taylor_ops.publishing.hub_errors import ANOTHER_FORM, BUSY, asked_to_wait, explained
from taylor_ops.publishing.retries import Patience
from taylor_ops.storage.files import FULL_OR_CLOSED, sha256_of

T = TypeVar("T")

KEPT_BY_THE_HUB = ".gitattributes"
"""The one file that the Hub itself puts into every repository and changes there."""

_HASHED_AT_ONCE = 4
_SHORT_WAIT = 10.0
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Piece:
    """One file to publish.

    Attributes:
        path: The file on disk.
        sha256: Its hash, on disk and in the manifest.
    """

    path: Path
    sha256: str

    def is_there(self, file: RepoFile | None) -> bool:
        """Whether the file on the Hub has these bytes, by the hash that the Hub has of it."""
        if file is None or file.size != self.path.stat().st_size:
            return False
        return bool(file.lfs.sha256 == self.sha256 if file.lfs else file.blob_id == self._blob())

    def _blob(self) -> str:
        """Git's name for the bytes."""
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


Cargo = Mapping[str, Piece]
Tree = Mapping[str, RepoFile]


def cargo_of(bundle: Path, files: Mapping[str, str]) -> Cargo:
    """The files of a bundle by name.

    The hashes decide which files the Hub already has, so they are checked against the files on disk.

    Raises:
        WorkFailed: A file is missing or does not have its listed hash. The message names it.
    """
    for name in files:
        if not (bundle / name).is_file():
            raise WorkFailed(f"{bundle / name} is missing; nothing was published", "run again to assemble it anew")
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        found = dict(zip(files, pool.map(lambda name: sha256_of(bundle / name), files), strict=True))
    for name, sha256 in files.items():
        if found[name] != sha256:
            raise WorkFailed(
                f"{bundle / name} has changed since it was assembled; nothing was published",
                "run again to assemble it anew",
            )
    return {name: Piece(bundle / name, sha256) for name, sha256 in files.items()}


def differing(tree: Tree, cargo: Cargo) -> list[str]:
    """Sorted names of the files that differ or that only one of both has."""
    names = (tree.keys() | cargo.keys()) - {KEPT_BY_THE_HUB}
    return sorted(name for name in names if name not in cargo or not cargo[name].is_there(tree.get(name)))


@dataclass(frozen=True)
class References:
    """Branches and tags of a repository, each as commits by name."""

    branches: dict[str, str]
    tags: dict[str, str]


@dataclass
class Repository:
    """One repository; open it with `repository_on_the_hub`."""

    repo_id: str
    api: HfApi
    patience: Patience

    @property
    def owner(self) -> str:
        """The account or organisation that owns the repository."""
        return self.repo_id.partition("/")[0]

    @property
    def url(self) -> str:
        """The address of its page."""
        return f"{self.api.endpoint}/{self.repo_id}"

    def ask(self, doing: str, call: Callable[[], T], permission: str = "`read` access to it") -> T:
        """Call the client, with retries.

        Args:
            doing: What the call does, as a verb phrase for the error.
            call: The call.
            permission: The permission that it needs, for the error.

        Raises:
            BadInput: A person has to change something first. The message says what could not be done.
            WorkFailed: Anything else went wrong. The client's own error is not chained, because it carries the request
                and thereby the token.
        """
        try:
            return self.patience(call)
        except ReleaseError:
            raise
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError, *ANOTHER_FORM) as error:
            if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
                raise
            refusal = explained(error, self.repo_id, doing, permission)
        raise refusal

    def change(self, doing: str, call: Callable[[], T]) -> T:
        """Like `ask`, for calls that need write access."""
        return self.ask(doing, call, f"`write` access to the repositories of {self.owner}")

    def references(self) -> References:
        """All branches and tags."""

        def listed() -> References:
            refs = self.api.list_repo_refs(self.repo_id)
            branches, tags = ({ref.name: ref.target_commit for ref in found} for found in (refs.branches, refs.tags))
            if "main" not in branches:
                raise KeyError("main")
            return References(branches, tags)

        return self.ask("list its branches", listed)

    def tree(self, revision: str) -> Tree:
        """Every file at a revision, with its size and hashes."""

        def listed() -> Tree:
            entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self.ask(f"list its files at {revision}", listed)

    def head(self, revision: str) -> str:
        """The commit to which a branch, tag or pull request points."""

        def looked_up() -> str:
            sha: str | None = self.api.model_info(self.repo_id, revision=revision).sha
            if sha is None or not _COMMIT.fullmatch(sha):
                raise TypeError("no commit")
            return sha

        return self.ask(f"look up {revision}", looked_up)

    def require_writer(self) -> str:
        """The name of the account. Raises `BadInput` if there is no token or it may not write to the repository."""

        def looked() -> tuple[str, dict[str, Any], Any, set[str]]:
            me: dict[str, Any] = self.api.whoami()
            roles = {org["name"]: org.get("roleInOrg") for org in me.get("orgs") or ()}
            token = (me.get("auth") or {}).get("accessToken") or {}
            scoped = (token.get("fineGrained") or {}).get("scoped") or ()
            writes = {
                str((scope.get("entity") or {}).get("name"))
                for scope in scoped
                if "repo.write" in scope.get("permissions", ())
            }
            return str(me["name"]), roles, token.get("role"), writes

        name, orgs, role, writes = self.ask("see whose token this is", looked, "permission to read its own account")
        if self.owner != name and self.owner not in orgs:
            raise BadInput(
                f"{self.repo_id}: account {name} does not belong to {self.owner}",
                f"correct `publish.repo_id`, or use a token of an account with `write` access to {self.owner}",
            )
        refused = role == "read" or orgs.get(self.owner) == "read"
        if refused or (role == "fineGrained" and not writes & {self.owner, self.repo_id}):
            raise BadInput(
                f"{self.repo_id}: the token of {name} may not write there; it needs the permission `repo.write` "
                f"on {self.owner}",
                f"use a token with `repo.write` on {self.owner}",
            )
        return name

    def require_not_public(self) -> None:
        """Raise `BadInput` if the repository is there and everyone may see it."""
        access = self._access()
        if access is not None and not access[0]:
            raise BadInput(
                f"{self.repo_id} is public, and the file of the config names another place and does not say that its "
                "bundles are",
                "publish into a private repository or a new one; or change the file: `publish.private: false`, or "
                "`publish.private` under `overridable`",
            )

    def create(self, where: Publish) -> None:
        """Create the repository if it is missing, as a private one unless the config says otherwise."""
        if self._access() is None:
            private = where.private is not False
            self.change(
                "create it",
                lambda: self.api.create_repo(
                    self.repo_id, private=private, exist_ok=True, resource_group_id=where.resource_group
                ),
            )

    def set_access(self, where: Publish) -> None:
        """Give the repository the access settings of the config."""
        if not _granted(self._access(), where):
            self.change(
                "set who may see it",
                lambda: self.api.update_repo_settings(self.repo_id, private=where.private, gated=where.gated),
            )
            if not _granted(self._access(), where):
                raise WorkFailed(f"{self.repo_id}: the Hub did not apply its access settings", "set them on its page")

    def _access(self) -> tuple[bool, str | bool] | None:
        """Whether the repository is private, and whether it is gated. None if it does not exist."""

        def look() -> tuple[bool, str | bool] | None:
            try:
                info = self.api.model_info(self.repo_id)
            except RepositoryNotFoundError:
                return None
            gated = info.gated or False
            if not isinstance(info.private, bool) or gated not in ("auto", "manual", False):
                raise TypeError("private or gated")
            return info.private, gated

        return self.ask("look it up", look)


def _granted(access: tuple[bool, str | bool] | None, where: Publish) -> bool:
    if access is None:
        return False
    private, gated = access
    return where.private in (None, private) and (where.gated is None or where.gated == gated)


@contextmanager
def repository_on_the_hub(
    repo_id: str, token: SecretStr | None = None, patience: Patience | None = None
) -> Iterator[Repository]:
    """A repository on the Hub of HF_ENDPOINT, with HF_TOKEN or the login of this machine unless a token is given."""
    patience, secret = patience or Patience(), note_secret(token.get_secret_value()) if token else None
    with _client_of(patience, _leave_waits_to_patience):
        yield Repository(repo_id, HfApi(endpoint=constants.ENDPOINT, token=secret), patience)


@contextmanager
def patient_client(patience: Patience | None = None) -> Iterator[Patience]:
    """The patience with which to call the client of the Hub, to fetch a source for instance.

    Until the context ends, the client itself repeats no request that a busy Hub refuses, so that nothing is waited for
    without a word.
    """
    patience = patience or Patience()
    with _client_of(patience, _leave_errors_to_patience):
        yield patience


@contextmanager
def _client_of(patience: Patience, see: Callable[[httpx2.Response], None]) -> Iterator[None]:
    """Until the context ends, have the client show every answer to `see`, which may raise its error.

    It gives up connections that fall silent, which it never does by default, and leaves it to `patience` to wait as
    long as the Hub asks. Its own warnings are off, because they quote signed addresses. What it repeats by itself after
    a request without an answer is said by `patience`.
    """
    unanswered: set[tuple[str, str, str]] = set()

    def one_of(request: httpx2.Request) -> tuple[str, str, str]:
        return request.method, request.url.host, request.url.path

    def answered(response: httpx2.Response) -> None:
        unanswered.discard(one_of(response.request))

    def tell_repeats(request: httpx2.Request) -> None:
        if one_of(request) in unanswered:
            patience.asks_again(request.url.host)
        unanswered.add(one_of(request))

    def give_up_in_silence(request: httpx2.Request) -> None:
        # Set on the request, because some calls of the client override any default with no limit at all.
        limits = request.extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
        request.extensions["timeout"] = {
            name: patience.silence if limit is None else min(limit, patience.silence) for name, limit in limits.items()
        }

    def client() -> httpx2.Client:
        created: httpx2.Client = default_client_factory()
        hooks = created.event_hooks
        created.event_hooks = hooks | {
            "request": [*hooks["request"], tell_repeats, give_up_in_silence],
            "response": [*hooks["response"], answered, see],
        }
        return created

    verbosity = client_logging.get_verbosity()
    client_logging.set_verbosity_error()
    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        client_logging.set_verbosity(verbosity)


def _leave_waits_to_patience(response: httpx2.Response) -> None:
    """Raise the error of an answer that asks to wait: the client would wait as long as it says, without a word.

    A short wait in an upload stays with the client, which repeats one part of a file and not all of it.
    """
    asked = asked_to_wait(response)
    if asked is not None and (response.request.method != "PUT" or asked > _SHORT_WAIT):
        response.read()
        hf_raise_for_status(response)


def _leave_errors_to_patience(response: httpx2.Response) -> None:
    """Raise the error of every answer that a later request may not get: the client would wait without a word."""
    if response.status_code in BUSY:
        response.read()
        hf_raise_for_status(response)


def is_stale(error: BaseException) -> bool:
    """Whether a commit was refused because its branch has moved on."""
    return isinstance(error, HfHubHTTPError) and error.response.status_code == 412
