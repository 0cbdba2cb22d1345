"""What the reader of release configs accepts, and what it says about everything else.

Long because it is a table: one line for each mistake that a YAML file can hold, with the words that name it.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from taylor_ops.config import DatasetSource, Exactness, GgufSource, HubSource, TextSource
from taylor_ops.config_file import ConfigErrors, LoadedConfig, read, schema, schema_text
from taylor_ops.errors import BadInput

SHIPPED = Path(__file__).parents[2] / "release_configs"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VALID = f"""\
name: tiny
version: 1.0.0
source:
  kind: hub
  repo_id: owner/tiny
  revision: {COMMIT}
card:
  license: mit
publish:
  repo_id: owner/tiny-taylor
"""
VALID_LINES = len(VALID.splitlines())


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "release.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def errors_of(folder: Path, text: str | bytes, overrides: dict[str, str] | None = None) -> list[str]:
    """The lines of the errors of a config, without the folder."""
    with pytest.raises(ConfigErrors) as caught:
        read(written(folder, text), overrides or {})
    return [line.removeprefix(f"{folder}/") for line in caught.value.lines]


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
    assert json.loads(schema_text()) == document


# Every error at once


def test_every_error_of_a_file_is_reported_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = """\
# A comment, so that lines and keys differ.
name: tiny
version: 1.0

source:
  kind: hub
  revision: main
calibration:
  texts:
    - name: project
      builtin: calibration
      limit: 0
    - name: neither
  tokens: "4096"
conversion:
  basis: chebishev
  tolerance: 1.2
latncy:
  target_slowdown: 3
exactness:
  batch_size: 8
name: again
card: {license: mit, language: en, tags: [no, fine]}
"""
    assert errors_of(tmp_path, text) == [
        "release.yaml:2: publish: is required; it must be a section with `repo_id`",
        "release.yaml:3: version: is the number 1.0, must be text that matches "
        r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$ (Semantic version of the release)"
        '; put it in quotes: "1.0"',
        "release.yaml:5: source.repo_id: is required; it must be text that matches "
        "^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$ "
        "(Owner and name, such as `meta-llama/Meta-Llama-3-8B-Instruct`)",
        "release.yaml:7: source.revision: is the text 'main', must be text that matches ^[0-9a-f]{40}$ "
        "(The commit as 40 hexadecimal digits: a branch or a tag can move, a commit cannot)",
        "release.yaml:12: calibration.texts.0.limit: is the number 0, must be a whole number at least 1 or null",
        "release.yaml:13: calibration.texts.1.dataset: needs exactly one of `builtin`, `file` and `dataset`",
        "release.yaml:14: calibration.tokens: is the text '4096', must be a whole number at least 256"
        "; take the quotes away",
        "release.yaml:16: conversion.basis: is the text 'chebishev', must be `chebyshev` or `taylor`",
        "release.yaml:17: conversion.tolerance: is the number 1.2, must be a number from 1e-09 to 1",
        "release.yaml:18: latncy: unknown key; did you mean `latency`?",
        "release.yaml:20: exactness.floor_batch_size: "
        "must be smaller than `batch_size`: the floor is another execution",
        "release.yaml:22: name: is given twice, in lines 2 and 22; keep one of them",
        "release.yaml:23: card.language: is the text 'en', must be a list"
        "; write each item on a line of its own after a dash, or in [ ]",
        'release.yaml:23: card.tags.0: is the truth value no, must be text; put it in quotes: "no"',
    ]


def test_the_exception_carries_the_lines_and_a_remedy_and_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read(written(tmp_path, VALID + "seed: x\ndevice: gpu\n"))
    error = caught.value
    assert isinstance(error, ConfigErrors)
    assert len(error.lines) == 2
    assert str(error) == error.cause == "\n".join(error.lines)
    assert "taylor-release schema" in error.remedy
    assert error.exit_status == 2
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.lines, again.cause, again.remedy) == (error.lines, error.cause, error.remedy)


PROMPT = "exactness.prompts.0."


def text_of(origin: str = "limit: 1") -> str:
    """A config line with one held-out text."""
    return f"exactness: {{prompts: [{{name: a, {origin}}}]}}"


def data_set(fields: str) -> str:
    """A config line with one held-out data set."""
    return text_of(f"dataset: {{{fields}}}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: 1.0", "seed: is the number 1.0, must be a whole number from 0 to 4294967295"),
        ("seed: true", "seed: is the truth value true, must be a whole number from 0 to 4294967295"),
        ("seed: -1", "seed: is the number -1, must be a whole number from 0 to 4294967295"),
        ("seed: 010", "seed: is the text '010', must be a whole number from 0 to 4294967295; take the quotes"),
        ("seed: 1e999", "seed: is '1e999', must be a finite number"),
        ("latency: {tolerance: .nan}", "latency.tolerance: is the text '.nan', must be a number above 0 and"),
        ("latency: {target_slowdown: 1}", "latency.target_slowdown: is the number 1, must be a number above 1 and"),
        ("latency: 3", "latency: is the number 3, must be a section with `target_slowdown`, `tolerance`,"),
        ("latency:", "latency: is empty, must be a section with"),
        ("latency: [1]", "latency: is a list, must be a section with"),
        ("exactness: {prompts: []}", "exactness.prompts: is an empty list, must be a list of at least 1"),
        ("exactness: {prompts: {}}", "exactness.prompts: is a section, must be a list of at least 1"),
        ("exactness: {prompts: [a]}", "exactness.prompts.0: is the text 'a', must be a section with `name`"),
        ("execution: {runner: slurm}", "execution.runner: is the text 'slurm', must be `sequential`, `threads`,"),
        ("execution: {workers: 0}", "execution.workers: is the number 0, must be a whole number at least 1"),
        ("execution: {address: 'tcp://a:1'}", "execution.address: belongs to runner `dask` or `ray`"),
        ("execution: {runner: threads, address: a}", "execution.address: belongs to runner `dask` or `ray`"),
        ("conversion: {order: 65}", "conversion.order: is the number 65, must be a whole number from 1 to 64 or null"),
        ("conversion: {order: 9, max_order: 8}", "conversion.max_order: must be at least `order`, which is 9"),
        ("conversion: {dtype: int8}", "conversion.dtype: is the text 'int8', must be `float32`, `bfloat16` or `float1"),
        ("conversion: {dtype: 16}", "conversion.dtype: is the number 16, must be `float32`, `bfloat16` or `float16`"),
        (
            "exactness: {prompts: [{name: a, file: x.txt}, {name: b, file: y.txt}, {name: a, file: z.txt}]}",
            "exactness.prompts: two texts are called `a`; names must differ",
        ),
        (text_of("file: a.pkl"), f"{PROMPT}file: is 'a.pkl', must be a file that ends in .jsonl, .parquet, .txt"),
        (text_of("file: notes"), f"{PROMPT}file: is 'notes', must be a file that ends in .jsonl, .parquet, .txt"),
        (text_of(), f"{PROMPT}dataset: needs exactly one of `builtin`, `file` and `dataset`"),
        (text_of("file: a.txt, builtin: held_out"), f"{PROMPT}dataset: needs exactly one of `builtin`, `file` and `da"),
        (text_of("file: a.txt, dataset: {folder: a, split: b}"), f"{PROMPT}dataset: needs exactly one of"),
        (text_of("dataset: openai/gsm8k"), f"{PROMPT}dataset: is the text 'openai/gsm8k', must be a section with `spl"),
        (text_of("dataset: {folder: a}"), f"{PROMPT}dataset.split: is required; it must be text that matches"),
        (data_set("split: b"), f"{PROMPT}dataset.folder: needs exactly one of `name` (on the Hub) and `folder`"),
        (data_set("name: a/b, folder: c, split: d"), f"{PROMPT}dataset.folder: needs exactly one of `name` (on the Hu"),
        (data_set("name: a/b, split: c"), f"{PROMPT}dataset.revision: is required with `name`: the commit as 40 hexad"),
        (
            data_set("name: a/b, split: c, revision: main"),
            f"{PROMPT}dataset.revision: is the text 'main', must be text that matches ^[0-9a-f]{{40}}$ or null (The c",
        ),
        (data_set(f"folder: a, split: b, revision: {COMMIT}"), f"{PROMPT}dataset.revision: belongs to a data set of t"),
        (data_set("folder: a, split: 'b[:10]'"), f"{PROMPT}dataset.split: is the text 'b[:10]', must be text that mat"),
        (data_set(f"name: b, split: c, revision: {COMMIT}"), f"{PROMPT}dataset.name: is the text 'b', must be text th"),
        (data_set("folder: a, split: b, trust_remote_code: true"), f"{PROMPT}dataset.trust_remote_code: unknown key"),
        (text_of("file: a.jsonl, column: q, template: '{q}'"), f"{PROMPT}template: says the same as `column`; keep on"),
        (text_of("file: a.jsonl, template: '{q.x}'"), f"{PROMPT}template: has 'q.x' in braces, which must be the name"),
        (
            text_of("file: a.jsonl, template: 'Why?'"),
            f"{PROMPT}template: names no column in braces, such as {{question",
        ),
        (
            text_of("file: a.jsonl, template: '{q'"),
            f"{PROMPT}template: is no template: expected '}}' before end of str",
        ),
        (text_of("file: a.jsonl, seed: -1"), f"{PROMPT}seed: is the number -1, must be a whole number from 0 to 42949"),
        ("device: gpu", "device: is the text 'gpu', must be text that matches"),
        ("audit: {attacks: [foo]}", "audit.attacks.0: is the text 'foo', must be `rank_one`, `ratios`"),
        ("zebra: 1", "zebra: unknown key; the keys here are `name`, `version`,"),
        ('"a\\nb": 1', "'a\\nb': unknown key; the keys here are"),
        ("calibration: {texts: [{name: t, builtin: held_out, fiel: x}]}", "calibration.texts.0.fiel: unknown key; did"),
        ("1: x", "1: this key is not read as text; put it in quotes, or correct it"),
        ("no: x", "no: this key is not read as text; put it in quotes, or correct it"),
        ("? [a, b]\n: x", "?: this key is not read as text; put it in quotes, or correct it"),
        ("<<: {seed: 1}", "<<: aliases and merge keys are not supported; write the keys out"),
        ("seed: *other", "seed: is the alias '*other'; aliases are not supported, write the value out"),
        ("*other : 1", "other: aliases and merge keys are not supported; write the keys out"),
        ("seed: !!python/name:os.system x", "seed: has the tag '!!python/name:os.system'; tags are not supported"),
        ("latency: !mine {}", "latency: has the tag '!mine'; tags are not supported"),
        ("seed: !!int x", "seed: is 'x', which cannot be read as int"),
        (f"seed: {'9' * 5000}", "seed: is '99999"),
        (f"conversion: {{order: {'9' * 400}}}", "conversion.order: is the number 99999"),
        (f"latency: {{target_slowdown: {'9' * 400}}}", "latency.target_slowdown: is the number 99999"),
        ('device: "\\ud800"', "device: is '\\ud800', with a character that must not stand in text"),
        ('device: "cpu\\e"', "device: is 'cpu\\x1b', with a character that must not stand in text"),
        ('"\\ud800": 1', "'\\ud800': this key has a character that must not stand in text"),
    ],
)
def test_one_mistake_gives_one_line(tmp_path: Path, line: str, message: str) -> None:
    [error] = errors_of(tmp_path, VALID + line + "\n")
    assert error.startswith(f"release.yaml:{VALID_LINES + 1}: {message}")


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ("  kind: ftp", ["4: source.kind: is the text 'ftp', must be `folder`, `gguf` or `hub`"]),
        ("  kind: [hub]", ["4: source.kind: is a list, must be `folder`, `gguf` or `hub`"]),
        ("  kind: *a", ["4: source.kind: is the alias '*a'; aliases are not supported, write the value out"]),
        ("  path: x", ["3: source.kind: is required; it must be `folder`, `gguf` or `hub`"]),
        ("  hub", ["3: source: is the text 'hub', must be a section whose `kind` is `folder`, `gguf` or `hub`"]),
        ("", ["3: source: is empty, must be a section whose `kind` is `folder`, `gguf` or `hub`"]),
        (
            "  kind: folder\n  folder: x",
            [
                "3: source.path: is required; it must be text",
                "5: source.folder: unknown key; the keys here are `recognise_architecture`, `kind` and `path`",
            ],
        ),
        ("  kind: gguf\n  file: 3", ['5: source.file: is the number 3, must be text; put it in quotes: "3"']),
        ("  kind: gguf\n  file: a\n  pakage: b", ["6: source.pakage: unknown key; did you mean `package`?"]),
    ],
)
def test_errors_of_the_source_name_its_kinds_and_never_its_classes(
    tmp_path: Path, source: str, messages: list[str]
) -> None:
    text = re.sub(r"  kind: hub\n.*\n.*\n", source + "\n", VALID)
    assert errors_of(tmp_path, text) == [f"release.yaml:{message}" for message in messages]


@pytest.mark.parametrize("repo_id", ["../..", "./tiny", "owner/..", "owner", "owner/a/b", "ownér/tiny", "owner/тiny"])
@pytest.mark.parametrize("key", ["source.repo_id", "card.base_model", "publish.repo_id"])
def test_a_repository_that_could_leave_its_folder_or_pass_for_another_is_refused(
    tmp_path: Path, key: str, repo_id: str
) -> None:
    [error] = errors_of(tmp_path, VALID, {key: repo_id})
    assert error.startswith(f"--set {key}: is the text {repo_id!r}, must be text that matches ^[A-Za-z0-9]")


def test_calibration_text_among_the_held_out_texts_is_reported_together_with_other_errors(tmp_path: Path) -> None:
    text = VALID + (
        "seed: x\n"
        "calibration: {texts: [{name: mine, file: texts/a.txt}]}\n"
        "exactness:\n"
        "  running_text: [{name: other, file: texts/b.txt}, {name: same, file: ./texts/a.txt}]\n"
        "device: gpu\n"
    )
    seed, exactness, device = errors_of(tmp_path, text)
    assert seed.startswith(f"release.yaml:{VALID_LINES + 1}: seed: ")
    assert exactness == (
        f"release.yaml:{VALID_LINES + 3}: exactness: text `same` is also a calibration text; "
        "held-out text must be another"
    )
    assert device.startswith(f"release.yaml:{VALID_LINES + 5}: device: ")


HUB = f"name: owner/set, config: main, split: test, revision: {COMMIT}"


@pytest.mark.parametrize(
    ("seen", "held_out", "same"),
    [
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB}}}, seed: 1, limit: 3, column: q", True),
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB.replace(COMMIT, 'f' * 40)}}}", True),
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB.replace('owner/set', 'Owner/Set')}}}", True),
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB.replace('config: main, ', '')}}}", True),
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB.replace('config: main', 'config: other')}}}", False),
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB.replace('split: test', 'split: train')}}}", False),
        (f"dataset: {{{HUB}}}", f"dataset: {{{HUB.replace('owner/set', 'owner/else')}}}", False),
        ("dataset: {folder: set, split: test}", "dataset: {folder: ./set, split: test}", True),
        ("dataset: {folder: set, split: test}", "dataset: {folder: other, split: test}", False),
        ("dataset: {folder: set, split: test}", "file: set.jsonl", False),
        ("file: a.parquet, seed: 0, limit: 10", "file: a.parquet, seed: 1", True),
        ("file: a.parquet", "file: b.parquet", False),
    ],
)
def test_one_split_of_a_data_set_is_for_calibration_or_held_out(
    tmp_path: Path, seen: str, held_out: str, same: bool
) -> None:
    text = VALID + (
        f"calibration: {{texts: [{{name: seen, {seen}}}]}}\nexactness: {{prompts: [{{name: kept, {held_out}}}]}}\n"
    )
    if same:
        [error] = errors_of(tmp_path, text)
        assert error.endswith("exactness: text `kept` is also a calibration text; held-out text must be another")
    else:
        assert read(written(tmp_path, text)).config.exactness.prompts[0].name == "kept"


def test_calibrating_on_the_prompts_that_are_held_out_by_default_is_refused(tmp_path: Path) -> None:
    [error] = errors_of(tmp_path, VALID + "calibration: {texts: [{name: same, builtin: held_out}]}\n")
    assert error == (
        "release.yaml:1: exactness: text `project` is also a calibration text; held-out text must be another"
    )


def test_what_follows_from_a_broken_value_is_not_reported(tmp_path: Path) -> None:
    text = VALID + "calibration:\n  texts:\n  - name: a\n    builtin: *a\n  - name: b\n    file: !x y\n"
    assert [error.split(":")[1:3] for error in errors_of(tmp_path, text)] == [
        [str(VALID_LINES + 4), " calibration.texts.0.builtin"],
        [str(VALID_LINES + 6), " calibration.texts.1.file"],
    ]


def test_a_bomb_of_aliases_is_refused_without_being_unfolded(tmp_path: Path) -> None:
    levels = ["l0: &l0 [x, x]"] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 30)]
    errors = errors_of(tmp_path, "\n".join(levels) + "\n")
    assert sum("is the alias" in error for error in errors) == 29 * 9


# Files that are no config


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "1: the file is empty, must be a section with `name`, `version`, `source`, `card` and `publish`"),
        ("# only a comment\n", "1: the file is empty, must be a section with `name`,"),
        ("---\n", "1: the file is empty, must be a section with `name`,"),
        ("~\n", "1: the file is empty, must be a section with `name`,"),
        ("\n- name: x\n", "2: the file is a list, must be a section with `name`,"),
        ("*a", "1: is the alias '*a'; aliases are not supported"),
        ("!config\nname: x\n", "1: has the tag '!config'; tags are not supported"),
        ("just text", "1: the file is the text 'just text', must be a section with `name`,"),
        ("name: x\nseed: [1,\n", "2: not valid YAML: while parsing a flow node"),
        ("name: x\nversion: 1: 2\n", "2: not valid YAML: mapping values are not allowed here"),
        ("name: x\n\tseed: 1\n", "2: not valid YAML: "),
        ("name: x\n---\nname: y\n", "2: not valid YAML: expected a single document in the stream"),
        ('name: x\nseed: "\\UFFFFFFFF"\n', "2: not valid YAML: an escape or directive is out of range"),
        ("name: x\nseed: \x00\n", "2: not valid YAML: the control character U+0000 must not stand in it"),
        ("x: " + "[" * 2000, "1: not valid YAML: nested deeper than 32 levels"),
        (b"name: x\ncard: \xe9\n", "2: is not UTF-8 text; save the file as UTF-8"),
        (VALID.encode("utf-16"), "1: is not UTF-8 text; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_config_gives_one_clean_error(tmp_path: Path, text: str | bytes, error: str) -> None:
    [only] = errors_of(tmp_path, text)
    assert only.startswith(f"release.yaml:{error}")


def test_a_missing_file_a_folder_and_a_huge_file_are_bad_input(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * 1_000_001)
    for path, cause in [
        (tmp_path / "missing.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (huge, "is larger than 1000000 bytes; this is no release config"),
    ]:
        with pytest.raises(ConfigErrors) as caught:
            read(path)
        assert caught.value.lines == [f"{path}: {cause}"]


# Overrides


def test_overrides_replace_add_and_descend_into_default_lists(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "latency:\n  pairs: 27\n")
    loaded = read(
        path,
        {
            "latency.target_slowdown": "4",
            "latency.pairs": "15",
            "conversion.tolerance": "1e-3",
            "exactness.prompts.0.limit": "3",
            "card.tags": "[a, b]",
            "card.contact": '""',
            "conversion.order": "null",
            "version": "2.0.0",
            "source": "{kind: gguf, file: tiny.gguf}",
        },
    )
    assert loaded.config.latency.target_slowdown == 4.0
    assert loaded.config.latency.pairs == 15
    assert loaded.config.conversion.tolerance == 1e-3
    assert loaded.config.exactness.prompts == (TextSource(name="project", builtin="held_out", limit=3),)
    assert loaded.config.exactness.running_text == Exactness().running_text
    assert loaded.config.card.tags == ("a", "b")
    assert loaded.config.card.contact == ""
    assert loaded.config.conversion.order is None
    assert loaded.config.version == "2.0.0"
    assert loaded.config.source.kind == "gguf"
    assert loaded.document["latency"] == {"pairs": 15, "target_slowdown": 4}
    assert loaded.text == path.read_text()


def test_an_override_may_correct_the_file(tmp_path: Path) -> None:
    assert read(written(tmp_path, VALID + "seed: x\n"), {"seed": "3"}).config.seed == 3


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("latency.target_slowdown", "fast", "latency.target_slowdown: is the text 'fast', must be a number above 1"),
        ("latency.target_slowdwn", "4", "latency.target_slowdwn: unknown key; did you mean `target_slowdown`?"),
        ("latncy.target_slowdown", "4", "latncy: unknown key; did you mean `latency`?"),
        ("version", "1.0", "version: is the number 1.0, must be text that matches"),
        ("card.license", "", "card.license: is empty, must be text that is not empty"),
        ("card.license", "[1", "card.license: not valid YAML: "),
        ("card.license", "*a", "card.license: is the alias '*a'"),
        ("card", "{license: a, license: b}", "card.license: is given twice; keep one of them"),
        ("latency", "{pairs: 1}", "latency.pairs: is the number 1, must be a whole number at least 11"),
        ("exactness.prompts.0.limit", "0", "exactness.prompts.0.limit: is the number 0, must be a whole number"),
        ("exactness.prompts.1.limit", "3", "exactness.prompts.1.limit: there is no '1' here: this is a list of 1, co"),
        ("exactness.prompts.last", "3", "exactness.prompts.last: there is no 'last' here: this is a list of 1, co"),
        ("name.first", "x", "name.first: there is no 'first' here: this is the text 'tiny', not a section"),
        ("name.first.second", "x", "name.first.second: there is no 'first' here: this is the text 'tiny', not a s"),
        ("", "x", "'': unknown key; the keys here are `name`,"),
    ],
)
def test_errors_of_overrides_name_their_key(tmp_path: Path, key: str, value: str, error: str) -> None:
    [only] = errors_of(tmp_path, VALID, {key: value})
    assert only.startswith(f"--set {error}")


def test_an_override_that_is_no_yaml_at_a_place_that_is_not_there_gives_both_errors(tmp_path: Path) -> None:
    no_yaml, no_place = errors_of(tmp_path, VALID, {"name.first": "[1"})
    assert no_yaml.startswith("--set name.first: not valid YAML: ")
    assert no_place.startswith("--set name.first: there is no 'first' here: ")


def test_an_override_below_a_broken_value_says_nothing_more(tmp_path: Path) -> None:
    [error] = errors_of(tmp_path, VALID + "exactness: *a\n", {"exactness.prompts.0.limit": "3"})
    assert error.startswith(f"release.yaml:{VALID_LINES + 1}: exactness: is the alias '*a'")


def test_errors_of_overrides_follow_those_of_the_file(tmp_path: Path) -> None:
    errors = errors_of(tmp_path, VALID + "device: gpu\n", {"seed": "x", "latency.pairs": "1", "card.licence": "mit"})
    assert [error.split(": ")[0] for error in errors] == [
        f"release.yaml:{VALID_LINES + 1}",
        "--set latency.pairs",
        "--set card.licence",
        "--set seed",
    ]


# Anything at all


JARGON = ("Input should", "value_error", "pydantic", "Value error", "HubSource", "Extra inputs", "Field required")

fragments = st.sampled_from(
    [
        *("name", "version", "source", "kind", "hub", "latency", "tolerance", "card", "license", "texts", "prompts"),
        *(
            ": ",
            ":",
            "\n",
            "\n  ",
            "\n- ",
            "- ",
            "  ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "? ",
            "|\n ",
            ">\n ",
            "---\n",
            "...\n",
        ),
        *("&a ", "*a ", "*b", "<<: ", "!!str ", "!x ", "!!set ", "%YAML 1.2\n", "%TAG ! x\n", "# c\n", "'", '"', "\\"),
        *("1", "1.0", "1e-4", ".inf", "-", "~", "no", "true", "0o7", "2024-01-01", "\t", "\r\n", "\u2028", "\x85", "é"),
        *('"\\ud800"', '"\\U00110000"', '"\\x1b"', "\ufeff", "\x07", VALID),
    ]
)
texts = st.lists(fragments, max_size=25).map("".join)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["1.0.0", "a/b", "hub"])
)
names = st.sampled_from(
    ["kind", "name", "file", "dataset", "template", "builtin", "tolerance", "prompts", "texts", "license", "x"]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        *("name", "version", "source", "source.kind", "source.revision", "latency.pairs", "calibration.texts"),
        *("exactness.prompts.0.dataset", "exactness.prompts.0.dataset.split", "exactness.prompts.0.template"),
        *("exactness.prompts.0.file", "exactness.prompts", "audit.attacks", "card", "card.tags", "publish", "extra"),
        *("conversion.order", "conversion.tolerance", "exactness.prompts.7", "name.x", "a..b", "source.x.y"),
    ]
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def check_answer(path: Path, overrides: dict[str, str]) -> None:
    """Reading gives a config whose document says the same again, or errors that stand in the file, a line each."""
    try:
        loaded = read(path, overrides)
    except ConfigErrors as error:
        lines = error.lines
    else:
        again = path.with_name("again.yaml")
        again.write_text(json.dumps(loaded.document, allow_nan=False), encoding="utf-8")
        assert read(again).config == loaded.config
        return
    assert lines
    # YAML counts more characters than "\n" as ends of lines, as `splitlines` does.
    last = max(1, len(path.read_bytes().decode("utf-8", "replace").splitlines()))
    for line in lines:
        assert line.isprintable()
        assert not any(word in line for word in JARGON)
        place = re.match(rf"{re.escape(str(path))}:(\d+): |--set ", line)
        assert place is not None, line
        assert place[1] is None or 1 <= int(place[1]) <= last


@settings(deadline=None, max_examples=150)
@given(text=texts)
def test_any_text_is_a_config_or_has_errors_in_its_lines(folder: Path, text: str) -> None:
    check_answer(written(folder, text), {})


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=40))
def test_any_bytes_are_a_config_or_have_errors_in_their_lines(folder: Path, data: bytes) -> None:
    check_answer(written(folder, data), {})


@settings(deadline=None, max_examples=150)
@given(changes=st.lists(st.tuples(keys, values), max_size=4), removed=st.sets(st.sampled_from(["name", "card"])))
def test_any_changed_config_is_valid_or_has_errors_in_its_lines(
    folder: Path, changes: list[tuple[str, Any]], removed: set[str]
) -> None:
    document = yaml.safe_load(VALID)
    for key, value in changes:
        *parents, last = key.split(".")
        target = document
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict):
            target[last] = value
    for key in removed:
        document.pop(key, None)
    check_answer(written(folder, yaml.safe_dump(document, allow_unicode=True, sort_keys=False)), {})


@settings(deadline=None, max_examples=150)
@given(overrides=st.dictionaries(keys | st.text("ab.0", max_size=5), texts | values.map(json.dumps), max_size=4))
def test_any_override_is_valid_or_has_errors_that_name_it(folder: Path, overrides: dict[str, str]) -> None:
    check_answer(written(folder, VALID), overrides)
