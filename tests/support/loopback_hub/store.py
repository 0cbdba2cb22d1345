"""What the stand-in for the Hub keeps: repositories, their commits and references, and large files by hash."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.loopback_hub.xet import files_in


class Refused(Exception):
    """A request that the Hub answers with an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Account:
    """Who a token belongs to. role: read or write; orgs: organisations that this account writes to."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()
    scopes: tuple[tuple[str, str], ...] | None = None

    def may_write(self, owner: str) -> bool:
        """Whether this token writes to repositories of `owner`."""
        if self.scopes is not None:
            return (owner, "repo.write") in self.scopes
        return self.role == "write" and owner in (self.name, *self.orgs)


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit. blob: git's name for its bytes, or for the pointer in place of a large file's. xet: the
    hash under which Xet storage has it."""

    blob: str
    size: int
    sha256: str | None = None
    xet: str | None = None


@dataclass(frozen=True)
class StoredCommit:
    """One state of a repository."""

    oid: str
    parent: str | None
    title: str
    files: Mapping[str, StoredFile]


@dataclass
class Pull:
    """A pull request; its commits are at `refs/pr/<number>`."""

    number: int
    title: str
    author: str
    status: str = "draft"
    merged_as: str | None = None


@dataclass
class Repository:
    """One model repository. refs: commit by full name, such as `refs/heads/main`."""

    name: str
    private: bool = False
    gated: str | bool = False
    resource_group: str | None = None
    commits: dict[str, StoredCommit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)

    def ref_named(self, revision: str) -> str | None:
        """The full name of a branch, a tag or a pull request."""
        candidates = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in candidates if name in self.refs), None)

    def at(self, revision: str) -> StoredCommit:
        """The commit that a branch, a tag, a pull request or a hash names."""
        ref = self.ref_named(revision)
        oid = self.refs[ref] if ref else revision
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def add(self, parent: StoredCommit | None, title: str, files: Mapping[str, StoredFile]) -> StoredCommit:
        """A new commit, which no reference names yet."""
        listed = sorted((name, file.blob) for name, file in files.items())
        text = json.dumps([self.name, len(self.commits), title, parent.oid if parent else None, listed])
        commit = StoredCommit(
            hashlib.sha1(text.encode()).hexdigest(), parent.oid if parent else None, title, dict(files)
        )
        self.commits[commit.oid] = commit
        return commit


class Store:
    """All that the stand-in keeps: small files in memory, large ones below a folder, or in Xet storage."""

    def __init__(self, folder: Path, xet: Path | None = None) -> None:
        self.folder, self.xet = folder, xet
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        (folder / "objects").mkdir(parents=True)
        (folder / "parts").mkdir()

    def repository(self, name: str) -> Repository:
        """The repository of this name; refused as the Hub refuses it where there is none."""
        if name not in self.repositories:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.repositories[name]

    def create(self, name: str, private: bool, resource_group: str | None) -> Repository:
        """A new repository with the one file that the Hub puts into each."""
        repository = Repository(name, private=private, resource_group=resource_group)
        attributes = self.small(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        repository.refs["refs/heads/main"] = repository.add(None, "initial commit", {".gitattributes": attributes}).oid
        self.repositories[name] = repository
        return repository

    def small(self, content: bytes) -> StoredFile:
        """Keep a file that git itself holds."""
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.blobs[blob] = content
        return StoredFile(blob, len(content))

    def large(self, sha256: str) -> StoredFile:
        """A large file that was uploaded before, as a commit refers to it."""
        path = self.object(sha256)
        there = files_in(self.xet).get(sha256) if self.xet else None
        if there is None and not path.is_file():
            raise Refused(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = there.size if there else path.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return StoredFile(self.small(pointer.encode()).blob, size, sha256, there.hash if there else None)

    def object(self, sha256: str) -> Path:
        """Where the bytes of a large file are, or would be."""
        return self.folder / "objects" / sha256

    def part(self, sha256: str, number: int) -> Path:
        """Where a part of an upload waits for the others."""
        return self.folder / "parts" / f"{sha256}-{number}"

    def keep(self, partial: Path, sha256: str) -> None:
        """Take an uploaded file in, if it has the hash that it was announced with."""
        with partial.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            partial.unlink()
            raise Refused(400, f"Content does not have the announced hash {sha256}")
        partial.replace(self.object(sha256))

    def join(self, sha256: str, numbers: list[int]) -> None:
        """Make one large file of its parts."""
        whole = self.folder / "parts" / f"{sha256}-whole"
        with whole.open("wb") as target:
            for number in numbers:
                with self.part(sha256, number).open("rb") as source:
                    shutil.copyfileobj(source, target)
        self.keep(whole, sha256)

    def commit(self, repository: Repository, revision: str, lines: list[dict[str, Any]]) -> StoredCommit:
        """Apply the lines of a commit request to a branch or a pull request."""
        ref = repository.ref_named(revision)
        if ref is None or ref.startswith("refs/tags/"):
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head, header = repository.at(revision), lines[0]["value"]
        if header.get("parentCommit") not in (None, head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                case "lfsFile":
                    files[value["path"]] = self.large(value["oid"])
                case "file":
                    files[value["path"]] = self.small(content_of(value))
                case other:
                    raise Refused(400, f"unknown line {other}")
        commit = repository.add(head, header["summary"], files)
        repository.refs[ref] = commit.oid
        return commit


def content_of(value: dict[str, Any]) -> bytes:
    """The bytes of a small file in a commit request."""
    return base64.b64decode(value["content"])
