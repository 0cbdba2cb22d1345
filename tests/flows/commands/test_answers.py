"""What commands print with --json: it keeps to the schema that `taylor-release schema COMMAND` prints."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from flows.commands.answers import ANSWERS
from flows.commands.main import COMMANDS
from tests.support import release_example as example
from tests.support.commands import called_here

CONFIG = """\
name: tiny
version: 1.0.0
source: {kind: folder, path: tiny}
card: {license: mit}
publish: {repo_id: owner/tiny-taylor}
"""


def schema_of(command: str) -> Draft202012Validator:
    done = called_here("schema", command)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def answered(command: str, *arguments: str | Path, status: int = 0) -> Any:
    """What a command prints with --json, after a look whether it keeps to its schema."""
    done = called_here(command, *arguments, "--json")
    assert done.returncode == status, done.stderr
    answer = json.loads(done.stdout)
    schema_of(command).validate(answer)
    return answer


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Two versions of a release, and a run that was not finished."""
    for version, changes in {"1.2.0": {}, "1.3.0": {"audit": example.audit(skipped=True)}}.items():
        record = example.record(config=example.config(version=version), **changes)
        record.write(tmp_path / "artifacts" / "tiny-taylor" / version / "release.json")
    (tmp_path / "artifacts" / "tiny-taylor" / "2.0.0" / "bundle").mkdir(parents=True)
    return tmp_path / "artifacts"


def test_every_command_with_json_has_a_schema_and_no_other_has() -> None:
    with_json = {name for name, command in COMMANDS.items() if "as_json" in inspect.signature(command).parameters}
    assert with_json == ANSWERS.keys()


@pytest.mark.parametrize("command", ANSWERS)
def test_every_schema_is_one_and_describes_what_it_is_about(command: str) -> None:
    document = schema_of(command).schema
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    if command != "changed":
        described = [document, *document.get("$defs", {}).values()]
        assert all(one.get("description") for one in described if one.get("type") == "object")


def test_a_command_without_json_has_no_schema() -> None:
    done = called_here("schema", "approve")
    assert (done.returncode, done.stdout) == (2, "")
    assert "`approve` is no command with --json" in done.stderr
    done = called_here("schema", "list", "--markdown")
    assert (done.returncode, done.stdout) == (2, "")


# What the commands print


def test_check_names_every_mistake_with_file_line_and_key(tmp_path: Path) -> None:
    good, bad, nowhere = (tmp_path / name for name in ("good.yaml", "bad.yaml", "nowhere.yaml"))
    good.write_text(CONFIG, encoding="utf-8")
    bad.write_text(CONFIG.replace("1.0.0", "1.0"), encoding="utf-8")
    first, second, third = answered("check", good, bad, nowhere, status=2)
    assert (first["name"], first["version"], len(first["sha256"]), first["mistakes"]) == ("tiny", "1.0.0", 64, [])
    assert first["missing"] == [
        {
            "file": str(good),
            "line": 3,
            "key": "source.path",
            "message": f"there is no folder {tmp_path}/tiny on this machine",
        }
    ]
    (mistake,) = second["mistakes"]
    assert (second["name"], mistake["file"], mistake["line"], mistake["key"]) == (None, str(bad), 2, "version")
    assert mistake["message"].endswith('put it in quotes: "1.0.0"')
    assert [(mistake["line"], mistake["key"]) for mistake in third["mistakes"]] == [(None, "")]
    assert len(answered("check", good)) == 1


def test_check_names_the_file_that_is_extended(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(CONFIG.replace("mit", "no-such-licence"), encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text("extends: base.yaml\nname: other\n", encoding="utf-8")
    (found,) = answered("check", config, status=2)
    assert [(one["file"], one["line"], one["key"]) for one in found["mistakes"]] == [
        (str(tmp_path / "base.yaml"), 4, "card.license")
    ]


def test_list_show_and_diff_keep_to_their_schemas(artifacts: Path) -> None:
    lines = answered("list", "--artifacts", artifacts)
    assert [(line["version"], line["problem"] is None) for line in lines] == [
        ("1.2.0", True),
        ("1.3.0", True),
        ("2.0.0", False),
    ]
    record = answered("show", "tiny-taylor", "1.2.0", "--artifacts", artifacts)
    assert record["version"] == "1.2.0"
    differences = answered("diff", "tiny-taylor", "1.2.0", "1.3.0", "--artifacts", artifacts)
    assert ("audit", "none") in {(line["what"], line["first"]) for line in differences if not line["same"]}
    assert any(line["same"] for line in differences)


def test_clean_keeps_to_its_schema(artifacts: Path) -> None:
    assert answered("clean", "--keep", "0", "--dry-run", "--artifacts", artifacts)["removed"] == ["tiny-taylor/2.0.0"]


def test_a_figure_that_is_no_number_keeps_to_the_schema_and_a_wrong_type_does_not() -> None:
    record = example.record().plain()
    schema = schema_of("show")
    for figure in ("NaN", "Infinity", 3.5):
        schema.validate(record | {"tie_margin": figure})
    for wrong in ("three", None, [1.0]):
        with pytest.raises(ValidationError):
            schema.validate(record | {"tie_margin": wrong})
