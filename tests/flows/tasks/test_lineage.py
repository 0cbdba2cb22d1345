"""What was published is an asset whose source is upstream of it, and neither names a place of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.tasks.lineage import key_of_source, publication_of
from taylor_ops.config.source import FolderSource, GgufSource
from taylor_ops.publishing.record import Published
from tests.support import release_example as example


def test_a_publication_is_an_asset_downstream_of_its_source() -> None:
    published = Published(
        target="hub",
        repo_id="Org/Tiny-Taylor",
        version="1.0.0",
        path="https://hub/Org/Tiny-Taylor/tree/v1.0.0",
        unchanged=False,
        commit="0" * 40,
    )
    task = publication_of(example.config(), published)
    assert [asset.key for asset in task.assets] == ["hf://Org/Tiny-Taylor"]
    assert [asset.key for asset in task.asset_deps] == ["hf://owner/Tiny"]
    assert task.assets[0].properties.url == published.path


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (FolderSource(kind="folder", path=Path("/home/someone/models/My Model")), "local://local-folder-My-Model"),
        (GgufSource(kind="gguf", file=Path("/data/model.gguf")), "local://GGUF-file-model.gguf"),
    ],
)
def test_a_local_source_is_named_without_its_place(source: FolderSource | GgufSource, key: str) -> None:
    assert key_of_source(example.config().model_copy(update={"source": source})) == key
