"""What the tests of publishing share: the stand-in for the Hub under the real client, small bundles, and a patience
that waits for nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http, disable_progress_bars

from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.config.publish import Publish
from taylor_ops.publishing.hub import publish_to_hub
from taylor_ops.publishing.record import Published
from taylor_ops.publishing.retries import Patience
from taylor_ops.storage.files import canonical_json, sha256_of_tree, write_text
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.server import WRITER, running
from tests.support.loopback_hub.store import Repository, Store

REPO = "org/tiny-taylor"
SILENCE = 0.3
"""Seconds: long enough for a request on loopback, short enough to wait out."""

Content = Mapping[str, bytes]


@contextmanager
def client_on_loopback(folder: Path, chunk_size: int | None = None) -> Iterator[Hub]:
    """The stand-in, with the real client pointed at it by an account that may write, without Xet and without waits."""
    with running(folder, chunk_size) as hub, pytest.MonkeyPatch.context() as patch:
        disable_progress_bars()
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setenv("HF_TOKEN", WRITER)
        for module in (_http, file_download):
            patch.setattr(module, "time", SimpleNamespace(sleep=lambda _seconds: None))
        yield hub


def impatient(budget: float = 60.0, silence: float = 5.0, waits: list[float] | None = None) -> Patience:
    """A patience that notes its waits and makes none."""
    return Patience(budget=budget, silence=silence, sleep=(waits if waits is not None else []).append)


def write_bundle(folder: Path, version: str, seed: int = 0, large: int = 2_000) -> Path:
    """A small bundle with its manifest; of each version one large file is its own, and one is the same in all."""
    draw = random.Random(f"{version} {seed}")
    write_text(folder / "README.md", f"---\nlicense: mit\n---\n# Version {version}\n")
    write_text(folder / "config.json", "{}\n")
    write_text(folder / f"only-in-{version}.txt", version)
    for name, content in {
        "model-00001-of-00002.safetensors": random.Random(0).randbytes(large),
        "model-00002-of-00002.safetensors": draw.randbytes(large),
    }.items():
        (folder / name).write_bytes(content)
    files = sha256_of_tree(folder)
    stated = {"format": 1, "version": version, "files": files, "exactness": {"continuations": []}}
    write_text(folder / MANIFEST, canonical_json(stated))
    return folder


def publish(bundle: Path, version: str, patience: Patience | None = None, **where: object) -> Published:
    """Publish a bundle with the real client."""
    settings = Publish.model_validate({"target": "hub", "repo_id": REPO} | where)
    files = sha256_of_tree(bundle)
    return publish_to_hub(settings, bundle, files, version, None, lambda _d, _t: None, patience or impatient())


def content_at(store: Store, revision: str) -> Content:
    """What a reader finds at a revision, but for what the Hub keeps there itself."""
    return content_of(store, store.repositories[REPO], store.repositories[REPO].at(revision).oid)


def content_of(store: Store, repository: Repository, commit: str) -> Content:
    """The bytes of every file of a commit, by name."""
    return {
        name: store.object(file.sha256).read_bytes() if file.sha256 else store.blobs[file.blob]
        for name, file in repository.commits[commit].files.items()
        if name != ".gitattributes"
    }


def content_in(folder: Path) -> Content:
    """The bytes of every file of a bundle, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def watch(hub: Hub, see: Callable[[Store, Repository], None]) -> None:
    """Let `see` look at the repository after every request."""

    def after_each(_kind: str) -> None:
        repository = hub.store.repositories.get(REPO)
        if repository is not None:
            see(hub.store, repository)

    hub.after_each = after_each
