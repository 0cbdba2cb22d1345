"""The files of a bundle: those of subfolders, and those that `card.files` adds, here and in marked copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import read_manifest
from taylor_ops.config.card import Card
from taylor_ops.config.source import FolderSource
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.evidence.key import Key
from taylor_ops.evidence.marking import Copy, MarkedModel
from taylor_ops.stages import inputs_of_assemble
from taylor_ops.storage.files import sha256_of, sha256_of_tree
from tests.support import release_example as example
from tests.taylor_ops.conftest import Sample, silent

TEMPLATE = "additional_chat_templates/tool_use.jinja"


@pytest.fixture
def original(llama: Sample, tmp_path: Path) -> Path:
    """An original with notes that nobody has to read."""
    place = shutil.copytree(llama.original, tmp_path / "original")
    (place / "docs").mkdir()
    (place / "docs" / "limits.md").write_text("# Limits\n", encoding="utf-8")
    return place


@pytest.fixture
def converted(llama: Sample, tmp_path: Path) -> Path:
    """The converted model of an original with two chat templates."""
    place = shutil.copytree(llama.converted, tmp_path / "converted")
    (place / TEMPLATE).parent.mkdir()
    (place / TEMPLATE).write_text("{{ messages }}", encoding="utf-8")
    return place


def findings_of(original: Path) -> Findings:
    return Findings(
        source=example.source().model_copy(update={"folder": original}),
        converted=example.converted(),
        latency=example.latency(),
        exactness=example.exactness(),
        audit=example.audit(),
    )


def test_a_bundle_holds_subfolders_and_the_files_that_the_card_adds(
    original: Path, converted: Path, tmp_path: Path
) -> None:
    config = example.config(
        source=FolderSource(kind="folder", path=original), card=Card(license="mit", files=("docs/limits.md",))
    )
    bundle = tmp_path / "bundle"
    record = assemble(converted, config, example.document(), findings_of(original), bundle)
    added = {TEMPLATE, "docs/limits.md"}
    assert added <= set(read_manifest(bundle)["files"]) < set(record.files)
    assert record.files == sha256_of_tree(bundle)
    assert record.bytes == sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


def test_the_files_that_the_card_adds_are_copies_of_what_links_lead_to(
    original: Path, converted: Path, tmp_path: Path
) -> None:
    (original / "docs" / "limits.md").rename(original / "docs" / "stored")
    (original / "docs" / "limits.md").symlink_to("stored")
    config = example.config(
        source=FolderSource(kind="folder", path=original), card=Card(license="mit", files=("docs/limits.md",))
    )
    bundle = tmp_path / "bundle"
    assemble(converted, config, example.document(), findings_of(original), bundle)
    assert not (bundle / "docs" / "limits.md").is_symlink()
    (bundle / "docs" / "limits.md").write_text("changed", encoding="utf-8")
    assert (original / "docs" / "stored").read_text(encoding="utf-8") == "# Limits\n"


def test_a_file_that_the_card_adds_never_replaces_one_of_the_conversion(
    original: Path, converted: Path, tmp_path: Path
) -> None:
    (converted / "docs").mkdir()
    (converted / "docs" / "limits.md").write_text("converted", encoding="utf-8")
    config = example.config(
        source=FolderSource(kind="folder", path=original), card=Card(license="mit", files=("docs/limits.md",))
    )
    with pytest.raises(BadInput, match=r"limits\.md is a file that the release makes itself"):
        assemble(converted, config, example.document(), findings_of(original), tmp_path / "bundle")
    assert (converted / "docs" / "limits.md").read_text(encoding="utf-8") == "converted"


def test_another_file_of_the_card_is_another_bundle(original: Path) -> None:
    config = example.config(
        source=FolderSource(kind="folder", path=original), card=Card(license="mit", files=("docs/limits.md",))
    )
    before = inputs_of_assemble(config, findings_of(original), {}, None)["files"]
    assert before == {"docs/limits.md": sha256_of(original / "docs/limits.md")}
    (original / "docs/limits.md").write_text("# Other limits\n", encoding="utf-8")
    assert inputs_of_assemble(config, findings_of(original), {}, None)["files"] != before
    (original / "docs/limits.md").unlink()
    with pytest.raises(BadInput, match=r"limits\.md is not a file"):
        inputs_of_assemble(config, findings_of(original), {}, None)


def test_a_marked_copy_holds_the_subfolders_and_nothing_else(converted: Path, tmp_path: Path) -> None:
    model, marked = MarkedModel(converted, Copy(Key(b"k" * 32), "acme", "1.0.0", 0.01)), tmp_path / "marked"
    marked.mkdir()
    model.write(marked, silent)
    assert sha256_of(marked / TEMPLATE) == sha256_of(converted / TEMPLATE)
    model.require_in(marked)
    (marked / TEMPLATE).unlink()
    (marked / TEMPLATE).write_text("{{ other }}", encoding="utf-8")
    with pytest.raises(GateRejected, match=r"tool_use\.jinja"):
        model.require_in(marked)
