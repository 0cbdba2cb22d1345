"""A config that extends another: what counts, from where paths start, which line is to blame, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from taylor_ops.config.source import FolderSource, GgufSource
from taylor_ops.config_file.extends import base_of
from taylor_ops.config_file.read import ConfigErrors, LoadedConfig, read
from taylor_ops.config_file.reference import reference
from taylor_ops.config_file.schema import schema_text

COMMON = """\
version: 1.0.0
source: {kind: folder, path: ../models/common, recognise_architecture: true}
latency: {target_slowdown: 4, pairs: 9}
exactness:
  prompts:
    - {name: here, file: prompts.jsonl}
    - {name: there, dataset: {folder: sets/mine, split: test}}
card: {license: mit, contact: team}
publish: {repo_id: owner/common}
"""
OWN = """\
extends: common/family.yaml
name: one
latency: {target_slowdown: 5}
publish: {repo_id: owner/one}
"""


def written(folder: Path, own: str = OWN, common: str = COMMON) -> Path:
    """A config, and below its folder the file that it extends."""
    (folder / "common").mkdir(exist_ok=True)
    (folder / "common" / "family.yaml").write_text(common, encoding="utf-8")
    path = folder / "one.yaml"
    path.write_text(own, encoding="utf-8")
    return path


def loaded(folder: Path, own: str = OWN, common: str = COMMON) -> LoadedConfig:
    return read(written(folder, own, common))


def errors(folder: Path, own: str = OWN, common: str = COMMON, **overrides: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        read(written(folder, own, common), overrides)
    return [line.replace(f"{folder}/", "") for line in caught.value.lines]


# What counts


def test_a_config_has_what_it_says_itself_and_the_rest_from_the_file_that_it_extends(tmp_path: Path) -> None:
    config = loaded(tmp_path).config
    assert (config.name, config.version, config.card.contact) == ("one", "1.0.0", "team")
    assert (config.latency.target_slowdown, config.latency.pairs) == (5, 9)
    assert config.publish.repo_id == "owner/one"


def test_a_list_and_a_source_count_as_a_whole(tmp_path: Path) -> None:
    own = OWN + "exactness: {prompts: [{name: project, builtin: held_out}]}\nsource: {kind: gguf, file: one.gguf}\n"
    config = loaded(tmp_path, own).config
    assert [text.name for text in config.exactness.prompts] == ["project"]
    assert config.source == GgufSource(kind="gguf", file=tmp_path / "one.gguf")


def test_an_empty_value_stands_in_place_of_one_of_the_other_file(tmp_path: Path) -> None:
    assert loaded(tmp_path, OWN + "card: {contact: null}\n").config.card.contact is None


def test_relative_paths_start_at_the_folder_of_the_file_in_which_they_stand(tmp_path: Path) -> None:
    config = loaded(tmp_path, OWN + "calibration: {texts: [{name: own, file: own.txt}]}\n").config
    assert isinstance(config.source, FolderSource)
    here, there = config.exactness.prompts
    assert config.calibration.texts[0].file == tmp_path / "own.txt"
    assert config.source.path == tmp_path / "common" / "../models/common"
    assert here.file == tmp_path / "common" / "prompts.jsonl"
    assert there.dataset is not None
    assert there.dataset.folder == tmp_path / "common" / "sets/mine"


def test_an_absolute_path_and_a_file_in_a_package_stay(tmp_path: Path) -> None:
    common = COMMON.replace(
        "{kind: folder, path: ../models/common, recognise_architecture: true}",
        "{kind: gguf, package: llm_tiny, file: data/tiny.gguf}",
    ).replace("prompts.jsonl", "/texts/prompts.jsonl")
    config = loaded(tmp_path, OWN, common).config
    assert config.source == GgufSource(kind="gguf", package="llm_tiny", file=Path("data/tiny.gguf"))
    assert config.exactness.prompts[0].file == Path("/texts/prompts.jsonl")


def test_a_file_beside_the_config_may_be_extended(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "beside.yaml").write_text(COMMON, encoding="utf-8")
    path.write_text(OWN.replace("common/family", "beside"), encoding="utf-8")
    assert read(path).document["exactness"]["prompts"][0]["file"] == "prompts.jsonl"
    assert base_of(path) == tmp_path / "beside.yaml"


# What a run is known by


def test_the_hash_covers_both_files_and_is_that_of_one_file_that_says_the_same(tmp_path: Path) -> None:
    both = loaded(tmp_path)
    assert "extends" not in both.document
    whole = tmp_path / "whole.yaml"
    whole.write_text(yaml.safe_dump(both.document, sort_keys=False), encoding="utf-8")
    # Stages are keyed by the sections of the config.
    assert (read(whole).sha256, read(whole).config) == (both.sha256, both.config)
    assert loaded(tmp_path, OWN, COMMON.replace("pairs: 9", "pairs: 10")).sha256 != both.sha256
    assert loaded(tmp_path, OWN.replace("owner/one", "owner/two")).sha256 != both.sha256


def test_overrides_count_before_both(tmp_path: Path) -> None:
    path = written(tmp_path)
    overrides = {"latency.pairs": "11", "latency.target_slowdown": "6", "exactness.prompts.0.limit": "3"}
    config = read(path, overrides).config
    assert (config.latency.pairs, config.latency.target_slowdown) == (11, 6)
    assert config.exactness.prompts[0].limit == 3


def test_what_guards_a_release_in_the_other_file_is_not_loosened_by_a_run(tmp_path: Path) -> None:
    guarded = COMMON.replace("{repo_id: owner/common}", "{repo_id: owner/common, approval: true}")
    (line,) = errors(tmp_path, OWN, guarded, **{"publish.approval": "false"})
    assert line.startswith("--set publish.approval: is false, the file has true")
    path = written(tmp_path, OWN, guarded + "overridable: [publish.approval]\n")
    assert not read(path, {"publish.approval": "false"}).config.publish.approval


# Which line is to blame


def test_a_mistake_is_at_the_line_of_the_file_in_which_it_stands(tmp_path: Path) -> None:
    own = OWN + "seed: x\n"
    common = COMMON.replace("pairs: 9", "pairs: 1").replace("license: mit, ", "").replace("1.0.0", "1.0")
    found = errors(tmp_path, own, common)
    assert [line.split(" ")[:2] for line in found] == [
        ["one.yaml:5:", "seed:"],
        ["common/family.yaml:1:", "version:"],
        ["common/family.yaml:3:", "latency.pairs:"],
        ["common/family.yaml:8:", "card.license:"],
    ]
    assert found[1].endswith('put it in quotes: "1.0.0"')


def test_a_key_that_neither_file_has_is_missed_in_the_config(tmp_path: Path) -> None:
    (line,) = errors(tmp_path, OWN, COMMON.replace("version: 1.0.0\n", ""))
    assert line.startswith("one.yaml:1: version: is required")


def test_the_structure_of_the_other_file_is_judged_too(tmp_path: Path) -> None:
    assert errors(tmp_path, OWN, COMMON + "version: 2.0.0\n") == [
        "common/family.yaml:10: version: is given twice, in lines 1 and 10; keep one of them"
    ]
    (line, *_rest) = [one for one in errors(tmp_path, OWN, "a: [\n") if one.startswith("common")]
    assert line.startswith("common/family.yaml:1: not valid YAML")


def test_a_key_that_the_other_file_has_in_another_form_does_not_count(tmp_path: Path) -> None:
    assert loaded(tmp_path, OWN, COMMON.replace("{target_slowdown: 4, pairs: 9}", "fast")).config.latency.pairs == 7


# What is refused


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "1: extends: is the number 3, must be the path of a file .yaml, relative to the folder of this file"),
        ("[a.yaml]", "1: extends: is a list, must be the path of a file .yaml"),
        ("", "1: extends: is empty, must be the path of a file .yaml"),
        ("nowhere.yaml", "1: extends: FOLDER/nowhere.yaml cannot be read: No such file or directory"),
        ("common/family", "1: extends: is the text 'common/family', must be the path of a file .yaml"),
        ("folder.yaml", "1: extends: FOLDER/folder.yaml is a folder, not a file"),
        ("./one.yaml", "1: extends: names this file itself"),
    ],
)
def test_what_is_no_other_config_cannot_be_extended(tmp_path: Path, value: str, message: str) -> None:
    own = OWN.replace("common/family.yaml", value)
    (tmp_path / "folder.yaml").mkdir()
    found = [line for line in errors(tmp_path, own) if " extends: " in line]
    assert len(found) == 1
    # The folder is taken away from what is told.
    assert found[0].startswith(f"one.yaml:{message.replace('FOLDER/', '')}")


@pytest.mark.parametrize("further", ["third.yaml", "../one.yaml"])
def test_a_file_that_is_extended_extends_no_other_and_so_makes_no_loop(tmp_path: Path, further: str) -> None:
    assert errors(tmp_path, OWN, f"{COMMON}extends: {further}\n") == [
        "common/family.yaml:10: extends: one.yaml extends this file, and a file that is extended extends no other; "
        "write its keys here"
    ]


def test_a_file_that_is_no_section_or_no_text_is_named(tmp_path: Path) -> None:
    assert any(
        line.startswith("common/family.yaml:1: the file is a list, must be a section")
        for line in errors(tmp_path, OWN, "- a\n")
    )
    path = written(tmp_path)
    (tmp_path / "common" / "family.yaml").write_bytes(b"version: 1.0.0\nname: \xff\n")
    with pytest.raises(ConfigErrors) as caught:
        read(path)
    assert f"{tmp_path}/common/family.yaml:2: is not UTF-8 text; save the file as UTF-8" in caught.value.lines


def test_the_key_belongs_into_the_file_and_its_name_is_suggested(tmp_path: Path) -> None:
    assert errors(tmp_path, extends="other.yaml") == [
        "--set extends: belongs into the file; give the keys that are to change instead"
    ]
    with pytest.raises(ConfigErrors, match=r"^more:1: extends: belongs into the file"):
        read(written(tmp_path), more="extends: other.yaml")
    found = errors(tmp_path, OWN.replace("extends", "extend"))
    assert any("extend: unknown key; did you mean `extends`?" in line for line in found)


# Schema and reference


def complaints(document: dict[str, Any]) -> list[str]:
    """The keys that the schema for editors misses or does not know."""
    return sorted(error.message for error in Draft202012Validator(json.loads(schema_text())).iter_errors(document))


def test_editors_ask_for_required_keys_only_in_a_file_that_extends_none() -> None:
    own = yaml.safe_load(OWN)
    own["card"] = {"contact": "team"}
    assert complaints(own) == []
    assert complaints(own | {"latncy": {}}) != []
    alone = {key: value for key, value in own.items() if key != "extends"}
    missed = [f"'{key}' is a required property" for key in ("license", "source", "version")]
    assert complaints(alone) == missed
    given = {"version": "1.0.0", "card": {"license": "mit"}, "source": {"kind": "folder", "path": "a"}}
    assert complaints(alone | given) == []


def test_the_reference_describes_the_key() -> None:
    assert "| `extends` | text |" in reference()
