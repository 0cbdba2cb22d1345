"""What the reader of release configs says about a file with mistakes: one line each, all at once.

Long because it is a table: one line for each mistake that a YAML file can hold, with the words that name it.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from taylor_ops.config_file.read import ConfigErrors, read
from taylor_ops.errors import BadInput
from tests.support.config_example import COMMIT, VALID, VALID_LINES, errors_of, written

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
        '; put it in quotes: "1.0.0"',
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
        "must be smaller than `batch_size`, so that the noise floor is from another execution",
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
        (data_set(f"folder: a, split: b, revision: {COMMIT}"), f"{PROMPT}dataset.revision: belongs to a data set on t"),
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
                "5: source.folder: unknown key; the keys here are `recognise_architecture`, `ignore`, `kind` and "
                "`path`",
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


def test_a_release_is_not_called_as_the_folder_of_what_is_published(tmp_path: Path) -> None:
    [error] = errors_of(tmp_path, VALID, {"name": "hub"})
    assert error == "--set name: is `hub`, the folder below the artifacts folder that holds what was published"


@pytest.mark.parametrize("key", ["source.repo_id", "card.base_model", "publish.repo_id"])
@pytest.mark.parametrize(
    "repo_id", ["org/a--b", "a--b/tiny", "org/a..b", "org/model.git", "org/" + "a" * 97, "org/a-", "org/a.", "org-/a"]
)
def test_a_name_that_the_hub_refuses_is_refused_by_its_own_rules(tmp_path: Path, key: str, repo_id: str) -> None:
    [error] = errors_of(tmp_path, VALID, {key: repo_id})
    assert error.startswith(f"--set {key}: is a name that the Hub refuses: ")
    assert repo_id in error


@pytest.mark.parametrize("repo_id", ["org/" + "a" * 96, "o/x", "Org_1/A.b-c_d"])
def test_a_name_that_the_hub_takes_is_taken(tmp_path: Path, repo_id: str) -> None:
    loaded = read(written(tmp_path, VALID), {"publish.repo_id": repo_id})
    assert loaded.config.publish.repo_id == repo_id


def test_a_name_of_a_release_longer_than_a_file_name_is_refused(tmp_path: Path) -> None:
    [error] = errors_of(tmp_path, VALID, {"name": "t" * 260})
    assert error.startswith("--set name: is the text 'ttt")


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
        f"release.yaml:{VALID_LINES + 3}: exactness: text `same` is also a calibration text; hold out another text"
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
        assert error.endswith("exactness: text `kept` is also a calibration text; hold out another text")
    else:
        assert read(written(tmp_path, text)).config.exactness.prompts[0].name == "kept"


def test_calibrating_on_the_prompts_that_are_held_out_by_default_is_refused(tmp_path: Path) -> None:
    [error] = errors_of(tmp_path, VALID + "calibration: {texts: [{name: same, builtin: held_out}]}\n")
    assert error == "release.yaml:1: exactness: text `project` is also a calibration text; hold out another text"


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


@pytest.mark.parametrize(
    ("signing", "says"),
    [
        ("{}", ["key_file: is needed if `method` is `key`, and only then"]),
        (
            "{method: sigstore}",
            ["identity: is needed if `method` is `sigstore`, and", "issuer: is needed if `method` is `sigstore`"],
        ),
        (
            "{key_file: k.pem, identity: a@example.org, issuer: 'https://example.org'}",
            ["identity: is needed if `method` is `sigstore`, and", "issuer: is needed if `method` is `sigstore`"],
        ),
        (
            "{method: sigstore, identity: 'a b', issuer: 'http://example.org'}",
            [
                "identity: is the text 'a b', must be text that",
                "issuer: is the text 'http://example.org', must be text",
            ],
        ),
    ],
)
def test_a_signature_needs_what_its_method_needs_and_nothing_else(
    tmp_path: Path, signing: str, says: list[str]
) -> None:
    found = errors_of(tmp_path, VALID + f"  signing: {signing}\n")
    assert [line.partition("publish.signing.")[2][: len(what)] for line, what in zip(found, says, strict=True)] == says


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("card.license", "Apache-2.0", "which is no licence of the Hub's list; did you mean `apache-2.0`"),
        ("card.license", "MIT", "did you mean `mit`"),
        ("card.license", "my own", "For a licence that is not on it write `other`"),
        ("card.language", "[english]", "has 'english', which is no code of a language"),
        ("card.language", "[en, pt-BR]", "has 'pt-BR', which is no code of a language"),
        ("card.language", "[EN]", "has 'EN', which is no code of a language"),
        ("card.language", "[en, xx]", "has 'xx', which is no code of a language"),
        ("card.language", "[jpy]", "has 'jpy', which is no code of a language"),
    ],
)
def test_a_licence_or_a_language_that_the_hub_does_not_know_is_refused(
    tmp_path: Path, key: str, value: str, says: str
) -> None:
    [error] = errors_of(tmp_path, VALID, {key: value})
    assert error.startswith(f"--set {key}: ")
    assert says in error


@pytest.mark.parametrize("licence", ["apache-2.0", "llama3", "gemma", "openrail++", "cc-by-nc-4.0"])
def test_a_licence_and_languages_that_the_hub_knows_are_taken(tmp_path: Path, licence: str) -> None:
    loaded = read(written(tmp_path, VALID), {"card.license": licence, "card.language": "[en, yue, code, multilingual]"})
    assert loaded.config.card.license == licence


def test_a_token_in_the_place_of_the_name_of_its_block_is_refused_and_not_repeated(tmp_path: Path) -> None:
    token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    with pytest.raises(ConfigErrors) as caught:
        read(written(tmp_path, VALID), {"publish.token_secret": token})
    assert "publish.token_secret" in str(caught.value)
    assert token not in f"{caught.value} {caught.value!r}"


def test_a_config_that_windows_wrote_reads_as_any_other(tmp_path: Path) -> None:
    plain = read(written(tmp_path, VALID))
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + plain.text.replace("\n", "\r\n").encode())
    assert read(path).document == plain.document
