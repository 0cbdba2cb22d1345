"""Over Xet a release is published as over git LFS, and of what changes only the changed chunks are sent.

The real client (hf_xet) writes chunks into a folder in place of a storage server, and reads them from there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _xet

from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.publishing.hub_fetch import Reference, fetch
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import REPO, client_on_loopback, content_in, impatient, publish, write_bundle
from tests.support.loopback_hub.faults import Fault
from tests.support.loopback_hub.store import Store

LARGE = 1_000_000
CHANGES = "model-00002-of-00002.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub with Xet storage, and a client that has nothing in its cache."""
    with client_on_loopback(tmp_path / "store") as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        patch.setenv("HF_XET_CACHE", str(tmp_path / "cache"))
        patch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())
        hub.store = Store(tmp_path / "hub", xet=tmp_path / "xet")
        yield hub


def bytes_in_storage(hub: Hub) -> int:
    assert hub.store.xet is not None
    return sum(path.stat().st_size for path in hub.store.xet.rglob("xorbs/default.*"))


def test_a_release_is_what_a_reader_fetches_and_the_next_one_sends_what_it_changes(hub: Hub, tmp_path: Path) -> None:
    first, second = (write_bundle(tmp_path / version, version, large=LARGE) for version in ("1.0.0", "1.1.0"))
    (second / CHANGES).write_bytes((first / CHANGES).read_bytes() + random.Random(7).randbytes(1_000))
    publish(first, "1.0.0")
    sent = bytes_in_storage(hub)
    assert sent > 2 * LARGE
    publish(second, "1.1.0")
    assert 1_000 <= bytes_in_storage(hub) - sent < LARGE / 4
    assert "xet_write" in hub.faults.seen
    assert not {"lfs_batch", "lfs_put"} & set(hub.faults.seen)
    for version, bundle in (("1.0.0", first), ("1.1.0", second)):
        fetch(Reference(REPO, f"v{version}"), tmp_path / f"fetched {version}", patience=impatient())
        assert content_in(tmp_path / f"fetched {version}") == content_in(bundle)
    assert "xet_read" in hub.faults.seen
    assert list((hub.store.folder / "objects").iterdir()) == []


def test_a_rerun_after_a_failure_sends_no_chunk_again(hub: Hub, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "1.0.0", large=LARGE)
    hub.faults.order(Fault("before", kind="commit"))
    with pytest.raises(WorkFailed):
        publish(bundle, "1.0.0", impatient(budget=0))
    sent = bytes_in_storage(hub)
    assert sent > 2 * LARGE
    hub.faults.clear()
    publish(bundle, "1.0.0")
    assert bytes_in_storage(hub) == sent
    fetch(Reference(REPO, "v1.0.0"), tmp_path / "fetched", patience=impatient())
    assert content_in(tmp_path / "fetched") == content_in(bundle)


def test_leave_to_write_that_is_refused_ends_a_publish_with_the_permission(hub: Hub, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "1.0.0")
    hub.faults.order(Fault("answer", kind="xet_write", status=403, message="Forbidden", times=99))
    with pytest.raises(BadInput, match=r"needs `write` access to the repositories of org"):
        publish(bundle, "1.0.0")
