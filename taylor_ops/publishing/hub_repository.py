"""Read and change one repository on the Hub as one account, with retries and with errors for a person."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import logging as client_logging
from huggingface_hub.utils._http import default_client_factory
from pydantic import SecretStr

from taylor_ops.config.publish import Publish
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.publishing.hub_errors import explained, without_secrets
from taylor_ops.publishing.retries import Patience
from taylor_ops.storage.files import FULL_OR_CLOSED, sha256_of

T = TypeVar("T")

KEPT_BY_THE_HUB = ".gitattributes"
"""The one file that the Hub itself puts into every repository and changes there."""

_HASHED_AT_ONCE = 4


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
    _token: str | None = field(repr=False, default=None)

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
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
                raise
            refusal = explained(error, self.repo_id, doing, permission)
        cause, remedy = (without_secrets(text, self._token) for text in (refusal.cause, refusal.remedy))
        raise type(refusal)(cause, remedy)

    def change(self, doing: str, call: Callable[[], T]) -> T:
        """Like `ask`, for calls that need write access."""
        return self.ask(doing, call, f"`write` access to the repositories of {self.owner}")

    def references(self) -> References:
        """All branches and tags."""
        refs = self.ask("list its branches", lambda: self.api.list_repo_refs(self.repo_id))
        return References(
            {ref.name: ref.target_commit for ref in refs.branches}, {ref.name: ref.target_commit for ref in refs.tags}
        )

    def tree(self, revision: str) -> Tree:
        """Every file at a revision, with its size and hashes."""

        def listed() -> Tree:
            entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self.ask(f"list its files at {revision}", listed)

    def head(self, revision: str) -> str:
        """The commit to which a branch, tag or pull request points."""
        info = self.ask(
            f"look up {revision}",
            lambda: self.api.model_info(self.repo_id, revision=revision),
        )
        return str(info.sha)

    def require_writer(self) -> str:
        """The name of the account. Raises `BadInput` if there is no token or it may not write to the repository."""
        me: dict[str, Any] = self.ask("see whose token this is", self.api.whoami, "permission to read its own account")
        name, orgs = str(me["name"]), {org["name"]: org for org in me.get("orgs") or ()}
        if self.owner != name and self.owner not in orgs:
            raise BadInput(
                f"{self.repo_id}: account {name} does not belong to {self.owner}",
                f"correct `publish.repo_id`, or use a token of an account with `write` access to {self.owner}",
            )
        token = (me.get("auth") or {}).get("accessToken") or {}
        scoped = (token.get("fineGrained") or {}).get("scoped") or ()
        writes = {
            str((scope.get("entity") or {}).get("name"))
            for scope in scoped
            if "repo.write" in scope.get("permissions", ())
        }
        refused = token.get("role") == "read" or orgs.get(self.owner, {}).get("roleInOrg") == "read"
        if refused or (token.get("role") == "fineGrained" and not writes & {self.owner, self.repo_id}):
            raise BadInput(
                f"{self.repo_id}: the token of {name} may not write there; it needs the permission `repo.write` "
                f"on {self.owner}",
                f"use a token with `repo.write` on {self.owner}",
            )
        return name

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
            return bool(info.private), info.gated or False

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
    """A repository on the Hub of HF_ENDPOINT, with HF_TOKEN or the login of this machine unless a token is given.

    Until the context ends, the client gives up connections that fall silent, which it never does by default. Its own
    warnings are off, because they quote signed addresses.
    """
    patience, secret = patience or Patience(), token.get_secret_value() if token else None

    def give_up_in_silence(request: httpx2.Request) -> None:
        # Set on the request, because some calls of the client override any default with no limit at all.
        limits = request.extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
        request.extensions["timeout"] = {
            name: patience.silence if limit is None else min(limit, patience.silence) for name, limit in limits.items()
        }

    def client() -> httpx2.Client:
        created: httpx2.Client = default_client_factory()
        hooks = created.event_hooks
        created.event_hooks = hooks | {"request": [*hooks["request"], give_up_in_silence]}
        return created

    verbosity = client_logging.get_verbosity()
    client_logging.set_verbosity_error()
    set_client_factory(client)
    try:
        yield Repository(repo_id, HfApi(endpoint=constants.ENDPOINT, token=secret), patience, secret)
    finally:
        set_client_factory(default_client_factory)
        client_logging.set_verbosity(verbosity)


def is_stale(error: BaseException) -> bool:
    """Whether a commit was refused because its branch has moved on."""
    return isinstance(error, HfHubHTTPError) and error.response.status_code == 412
