"""What the reader of release configs accepts, and the schema that says so to editors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from taylor_ops.config.source import GgufSource, HubSource
from taylor_ops.config.texts import DatasetSource
from taylor_ops.config_file.read import LoadedConfig, read
from taylor_ops.config_file.schema import schema, schema_text
from tests.support.config_example import COMMIT, VALID, written

SHIPPED = Path(__file__).parents[3] / "release_configs"


# Valid configs


def test_a_valid_config_comes_with_its_document_text_and_path(tmp_path: Path) -> None:
    text = "# a comment\r\n" + VALID
    loaded = read(written(tmp_path, text))
    assert isinstance(loaded, LoadedConfig)
    assert loaded.config.name == "tiny"
    assert isinstance(loaded.config.source, HubSource)
    assert loaded.document == yaml.safe_load(VALID)
    assert loaded.text == text
    assert loaded.path == tmp_path / "release.yaml"


def test_lists_paths_whole_numbers_and_exponents_are_taken_as_yaml_has_them(tmp_path: Path) -> None:
    text = VALID + (
        "conversion: {tolerance: 1e-4, shard_bytes: 2_000_000}\n"
        "latency: {target_slowdown: 4}\n"
        "exactness:\n"
        "  running_text: []\n"
        "  prompts: [{name: mine, file: prompts.jsonl}, {name: elsewhere, file: /elsewhere.txt}]\n"
    )
    loaded = read(written(tmp_path, text))
    assert loaded.config.conversion.tolerance == 1e-4
    assert loaded.config.conversion.shard_bytes == 2_000_000
    assert loaded.config.latency.target_slowdown == 4.0
    assert loaded.config.exactness.running_text == ()
    assert [prompt.file for prompt in loaded.config.exactness.prompts] == [
        tmp_path / "prompts.jsonl",
        Path("/elsewhere.txt"),
    ]
    assert loaded.document["exactness"]["prompts"][0]["file"] == "prompts.jsonl"
    json.dumps(loaded.document, allow_nan=False)


@pytest.mark.parametrize("file", ["sub/tiny.gguf", "/elsewhere/tiny.gguf"])
def test_a_gguf_file_without_a_package_is_taken_from_beside_the_config(tmp_path: Path, file: str) -> None:
    config = read(written(tmp_path, VALID), {"source": f"{{kind: gguf, file: {file}}}"}).config
    assert isinstance(config.source, GgufSource)
    assert config.source.file == tmp_path / file  # an absolute path stays what it is


def test_a_gguf_file_in_a_package_keeps_the_name_it_has_there(tmp_path: Path) -> None:
    config = read(written(tmp_path, VALID), {"source": "{kind: gguf, package: some_package, file: tiny.gguf}"}).config
    assert isinstance(config.source, GgufSource)
    assert config.source.file == Path("tiny.gguf")


@pytest.mark.parametrize("text", ["\ufeff" + VALID, VALID.replace("\n", "\r\n"), "---\n" + VALID + "...\n"])
def test_byte_order_mark_windows_lines_and_document_marks_do_no_harm(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, text)).document == yaml.safe_load(VALID)


@pytest.mark.parametrize("value", ["2024-01-01", "12:30:00", "0x10", "010", '"no"', "'1.0'", "1.0.0"])
def test_what_looks_like_a_date_a_time_or_a_version_stays_text(tmp_path: Path, value: str) -> None:
    text = VALID.replace("license: mit", f"license: mit\n  contact: {value}")
    assert read(written(tmp_path, text)).config.card.contact == value.strip("'\"")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_are_valid_and_open_with_the_command_that_runs_them(path: Path) -> None:
    loaded = read(path)
    first, second = loaded.text.splitlines()[:2]
    assert first.startswith(f"# prefect deployment run release/{path.stem} ")
    assert f"taylor-release run release_configs/{path.name}" in first
    assert second == "# yaml-language-server: $schema=release-config.schema.json"
    assert loaded.document == yaml.safe_load(loaded.text), "another YAML reader must read the same"


def test_the_shipped_configs_are_those_that_are_promised() -> None:
    assert {path.stem for path in SHIPPED.glob("*.yaml")} >= {"smollm2", "llama", "llama-paper", "mistral", "phi"}


def test_the_data_sets_of_the_paper_are_named_at_a_commit_each() -> None:
    prompts = read(SHIPPED / "llama-paper.yaml").config.exactness.prompts
    named = {text.name: text.dataset for text in prompts if text.dataset is not None}
    assert list(named) == ["TruthfulQA", "MMLU", "OpenBookQA", "WinoGrande", "GSM8K"]
    assert len({data_set.revision for data_set in named.values()}) == 5


def test_a_data_set_has_a_place_a_part_and_a_way_to_its_text(tmp_path: Path) -> None:
    text = VALID + (
        "exactness:\n"
        "  prompts:\n"
        f"  - {{name: hub, dataset: {{name: owner/set, config: main, split: test, revision: {COMMIT}}}, seed: 3,"
        " column: question}\n"
        "  - {name: here, dataset: {folder: sets/mine, split: train}, template: '{question}\\n{choices}', limit: 5}\n"
        "  - {name: rows, file: rows.parquet}\n"
    )
    hub, here, rows = read(written(tmp_path, text)).config.exactness.prompts
    assert hub.dataset == DatasetSource(name="owner/set", config="main", split="test", revision=COMMIT)
    assert (hub.column, hub.seed, hub.limit) == ("question", 3, None)
    assert here.dataset == DatasetSource(folder=tmp_path / "sets" / "mine", split="train")
    assert here.template == "{question}\\n{choices}"
    assert rows.file == tmp_path / "rows.parquet"


# The schema


def test_the_shipped_schema_is_that_of_the_model() -> None:
    assert (SHIPPED / "release-config.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_names_its_dialect_and_forbids_unknown_keys_everywhere() -> None:
    document = schema()
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["title"] == "Release config"
    assert document["description"]
    sections = [document, *document["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in sections if section["type"] == "object")
    of_a_file = json.loads(schema_text())
    assert {*of_a_file["properties"]} == {"extends", *document["properties"]}
    assert of_a_file["$defs"].keys() == document["$defs"].keys()
    assert of_a_file["else"]["required"] == document["required"]
