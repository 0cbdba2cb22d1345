"""Values given on the command line in place of those of a release config."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.config_file.read import read
from tests.support.config_example import VALID, VALID_LINES, errors_of, written


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
