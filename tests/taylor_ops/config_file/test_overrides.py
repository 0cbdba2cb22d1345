"""Values of a run in place of those of a release config: of the command line, and of the text of `more`."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.config_file.read import ConfigErrors, read
from tests.support.config_example import COMMIT, VALID, VALID_LINES, errors_of, written


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
        ("card", "{license: mit, license: mit}", "card.license: is given twice; keep one of them"),
        ("latency", "{pairs: 1}", "latency.pairs: is the number 1, must be a whole number at least 7"),
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


def test_an_item_of_a_list_is_replaced_as_a_whole(tmp_path: Path) -> None:
    item = "{name: mine, file: mine.jsonl}"
    prompts = read(written(tmp_path, VALID), {"exactness.prompts.0": item}).config.exactness.prompts
    assert [(text.name, text.builtin, text.file) for text in prompts] == [("mine", None, tmp_path / "mine.jsonl")]


# The text of the parameter `more`


def test_a_text_of_more_keys_nests_or_dots_them_and_a_section_gets_the_keys_that_it_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "latency: {pairs: 27, tolerance: 0.2}\n")
    more = """\
latency:
  target_slowdown: 4
latency.pairs: 15
exactness.prompts.0.limit: 3
card: {tags: [a, b]}
source: {kind: gguf, file: tiny.gguf}
"""
    loaded = read(path, {"version": "2.0.0"}, more)
    assert loaded.document["latency"] == {"pairs": 15, "tolerance": 0.2, "target_slowdown": 4}
    assert loaded.config.exactness.prompts == (TextSource(name="project", builtin="held_out", limit=3),)
    assert (loaded.config.card.license, loaded.config.card.tags) == ("mit", ("a", "b"))
    assert loaded.document["source"] == {"kind": "gguf", "file": "tiny.gguf"}
    assert loaded.config.version == "2.0.0"


@pytest.mark.parametrize("more", ["", "\n", "# nothing\n", "{}", "~"])
def test_an_empty_text_changes_nothing(tmp_path: Path, more: str) -> None:
    loaded = read(written(tmp_path, VALID), {}, more)
    assert loaded.document == read(written(tmp_path, VALID)).document
    assert loaded.overridden == {}


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("seed: 3\nlatency: [1\n", "more:2: not valid YAML: "),
        ("seed: 3\nlatency:\n  pairs: 1\n", "more:3: latency.pairs: is the number 1, must be a whole number"),
        ("\nlatency.pairs: 1\n", "more:2: latency.pairs: is the number 1, must be a whole number at least 7"),
        ("latncy: {pairs: 9}", "more:1: latncy: unknown key; did you mean `latency`?"),
        ("card: {}\nevidence: {recipient: acme}", "more:2: evidence.key: is required; it must be text"),
        ("seed: 3\nname.first: x", "more:2: name.first: there is no 'first' here: this is the text 'tiny', not a sect"),
        ("seed: 3\nseed: 4\n", "more:2: seed: is given twice, in lines 1 and 2; keep one of them"),
        ("latency: {pairs: 9}\n\nlatency.pairs: 8", "more:3: latency.pairs: is given twice, by line 1 of `more` too"),
        ("seed: *a", "more:1: seed: is the alias '*a'"),
        ("seed", "more:1: is the text 'seed', must be keys of the config with their values, such as `seed: 3`"),
        ("- seed", "more:1: is a list, must be keys of the config"),
        ("seed: 1\npublish: {private: false}", "more:2: publish.private: is false, the file has null, and an override"),
    ],
)
def test_a_mistake_in_the_text_is_one_line_that_names_its_line(tmp_path: Path, more: str, error: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(written(tmp_path, VALID), {}, more)
    [only] = caught.value.lines
    assert only.startswith(error)


def test_a_key_that_stands_in_the_text_and_beside_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(written(tmp_path, VALID), {"version": "2.0.0"}, "seed: 3\nversion: 3.0.0\n")
    assert caught.value.lines == ["--set version: is given twice, by line 2 of `more` too; keep one of them"]


# What was overridden


def test_what_was_overridden_is_told_with_what_the_file_says_or_its_default(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "latency: {pairs: 27}\nseed: 3\n")
    settings = {
        "latency": "{pairs: 15, warmup: 2}",
        "seed": "3",
        "publish.approval": "true",
        "source": "{kind: gguf, file: tiny.gguf}",
        "publish.signing": "{key_file: k.pem}",
        "card.tags": "[a]",
    }
    assert read(path, settings).overridden == {
        "card.tags": {"file": [], "run": ["a"]},
        "latency.pairs": {"file": 27, "run": 15},
        "latency.warmup": {"file": 1, "run": 2},
        "publish.approval": {"file": False, "run": True},
        "publish.signing.key_file": {"file": None, "run": "k.pem"},
        "source.file": {"file": None, "run": "tiny.gguf"},
        "source.kind": {"file": "hub", "run": "gguf"},
        "source.repo_id": {"file": "owner/tiny", "run": None},
        "source.revision": {"file": COMMIT, "run": None},
    }
