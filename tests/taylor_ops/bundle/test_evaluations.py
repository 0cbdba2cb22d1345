"""The results that the Hub reads beside a card, and their way through the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.evaluations import EVAL_RESULTS, eval_results
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import read_manifest
from taylor_ops.bundle.marked_copy import mark_bundle
from taylor_ops.config.card import Card
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.publish import Publish
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource
from taylor_ops.config.texts import DatasetSource, TextSource
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.evidence.key import Key
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.texts import Machine
from taylor_ops.publishing.publish import publish_to_folder
from taylor_ops.source.card_files import card_files
from taylor_ops.storage.files import sha256_of
from taylor_ops.verification.verify import verify
from tests.support import release_example as example
from tests.taylor_ops.conftest import Sample, silent

TEXTS = Exactness(
    prompts=(
        TextSource(name="project", builtin="held_out"),
        TextSource(name="gsm8k", dataset=DatasetSource(name="openai/gsm8k", split="test", revision=example.COMMIT)),
    ),
    running_text=(
        TextSource(name="running-text", dataset=DatasetSource(name="org/text", split="test", revision=example.COMMIT)),
    ),
)


def entries(config: ReleaseConfig, statements: dict[str, Any] | None = None) -> list[Any]:
    """The entries as the library of the Hub reads them."""
    text = eval_results(statements or example.statements(), config)
    assert text is not None
    return parse_eval_result_entries(yaml.safe_load(text))


def test_results_on_data_sets_of_the_hub_are_read_by_its_library() -> None:
    shares, perplexity = entries(example.config(exactness=TEXTS))
    assert (shares.dataset_id, shares.task_id, shares.value) == ("openai/gsm8k", "equal_continuations", 23 / 24)
    assert (perplexity.dataset_id, perplexity.task_id, perplexity.value) == ("org/text", "perplexity", 17.25631)
    assert shares.dataset_revision == perplexity.dataset_revision == example.COMMIT
    # A date would be another one each time, and the Hub takes that of the commit.
    assert shares.date is None
    assert "continued with the tokens of the original, 64 each" in shares.notes
    assert "No score of a benchmark" in shares.notes


def test_a_result_names_the_manifest_as_its_source_where_that_is_on_the_hub() -> None:
    there = example.config(exactness=TEXTS, publish=Publish(target="hub", repo_id="example-org/Tiny-Taylor"))
    assert entries(there)[0].source_url == (
        "https://huggingface.co/example-org/Tiny-Taylor/blob/v1.2.0/taylor_release.json"
    )
    assert entries(example.config(exactness=TEXTS))[0].source_url is None


def test_without_a_data_set_of_the_hub_there_is_no_file() -> None:
    assert eval_results(example.statements(), example.config()) is None


def test_a_perplexity_that_is_no_number_is_left_out() -> None:
    statements = example.statements()
    statements["exactness"]["perplexity"][0]["bundle"] = "Infinity"
    assert [entry.task_id for entry in entries(example.config(exactness=TEXTS), statements)] == ["equal_continuations"]


@pytest.fixture
def bundle(llama: Sample, tmp_path: Path) -> Path:
    """A bundle with results."""
    findings = Findings(
        source=example.source(),
        converted=example.converted(),
        latency=example.latency(),
        exactness=example.exactness(),
        audit=example.audit(),
    )
    folder = tmp_path / "bundle"
    assemble(llama.converted, example.config(exactness=TEXTS), example.document(), findings, folder)
    return folder


def test_the_results_are_a_file_of_the_bundle_like_every_other(bundle: Path, tmp_path: Path) -> None:
    listed = read_manifest(bundle)["files"]
    assert listed[EVAL_RESULTS] == sha256_of(bundle / EVAL_RESULTS)
    files = listed | {"taylor_release.json": sha256_of(bundle / "taylor_release.json")}
    published = publish_to_folder(bundle, files, "org/tiny", "1.2.0", tmp_path / "a")
    place = tmp_path / "a" / published.path
    verify(place, tokens=False)
    mark_bundle(bundle, "acme", Key(b"k" * 32), 0.01, tmp_path / "copy", silent)
    assert sha256_of(tmp_path / "copy" / EVAL_RESULTS) == listed[EVAL_RESULTS]
    verify(tmp_path / "copy", tokens=False)
    (place / EVAL_RESULTS).write_text("[]\n", encoding="utf-8")
    with pytest.raises(GateRejected, match=r"\.eval_results/taylor_release\.yaml does not have the bytes"):
        verify(place, tokens=False)


def test_the_leak_gate_reads_the_results(bundle: Path, llama: Sample) -> None:
    files = read_manifest(bundle)["files"] | {"taylor_release.json": sha256_of(bundle / "taylor_release.json")}
    machine = Machine(user="", host="", places=(), secrets=("openai/gsm8k-secret-token",))
    (bundle / EVAL_RESULTS).write_text("notes: openai/gsm8k-secret-token\n", encoding="utf-8")
    files[EVAL_RESULTS] = sha256_of(bundle / EVAL_RESULTS)
    with pytest.raises(GateRejected, match=r"\.eval_results/taylor_release\.yaml"):
        require_no_leak(bundle, files, llama.original, {}, llama.record.layers, (), machine, silent)


def test_results_of_the_original_are_never_those_of_the_release(tmp_path: Path) -> None:
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "mmlu.yaml").write_text("[]\n", encoding="utf-8")
    config = example.config(
        source=FolderSource(kind="folder", path=tmp_path), card=Card(license="mit", files=(".eval_results/mmlu.yaml",))
    )
    with pytest.raises(BadInput, match="is a file that the release makes itself"):
        card_files(config, tmp_path)
