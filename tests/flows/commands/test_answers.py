"""What commands print with --json: it keeps to the schema that `taylor-release schema COMMAND` prints."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from flows.commands.answers import ANSWERS
from flows.commands.main import COMMANDS, GROUPS
from taylor_ops.evidence.record import Accusation, Traced
from taylor_ops.verification.record import Verified
from tests.support import release_example as example
from tests.support.commands import called_here
from tests.support.preflight_example import example as estimated

ROOT = Path(__file__).parents[3]
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


def test_check_repeats_no_token(tmp_path: Path) -> None:
    token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    config = tmp_path / "config.yaml"
    config.write_text(f"{CONFIG}{token}: 1\nevidence: {token}\n", encoding="utf-8")
    (found,) = answered("check", config, status=2)
    assert [one["line"] for one in found["mistakes"]] == [6, 7]
    assert token not in json.dumps(found)


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


def test_plan_run_verify_and_trace_keep_to_their_schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    monkeypatch.setattr("taylor_ops.preflight.preflight.preflight", lambda *_given: estimated(warnings=("no token",)))
    assert answered("plan", config)["warnings"] == ["no token"]

    monkeypatch.setattr("flows.run.temporary_server.start_temporary_server", lambda: None)
    monkeypatch.setattr("flows.release.release", lambda *_given, **_more: example.record())
    assert answered("run", config)["name"] == "tiny-taylor"

    checked = Verified(files=9, prompts=2, tokens=64)
    monkeypatch.setattr("taylor_ops.verification.verify.verify", lambda *_given, **_more: checked)
    assert answered("verify", tmp_path) == {
        "files": 9,
        "attestations": 0,
        "prompts": 2,
        "tokens": 64,
        "signed_by": None,
    }

    named = Accusation(recipient="acme", version="1.0.0", z=9.5, log10_p=-20.0)
    traced = Traced(named=(named,), candidates=2, nearest=None, weights=5, weights_total=10, layers=1, layers_total=2)
    for name, value in {"trace.trace": traced, "key.read_key": None, "recipients.read_recipients": ()}.items():
        monkeypatch.setattr(f"taylor_ops.evidence.{name}", lambda *_given, value=value: value)
    places = ("--original", tmp_path, "--key", "KEY", "--recipients", tmp_path)
    assert answered("trace", tmp_path, *places)["named"] == [named.plain()]


def test_the_record_of_an_audit_keeps_to_its_schema() -> None:
    made = example.attack(attack="collapse", rebuilt=example.rebuilt())
    schema_of("audit").validate(example.audit(made, example.attack(under_determined="9 samples")).plain())


def test_a_figure_that_is_no_number_keeps_to_the_schema_and_a_wrong_type_does_not() -> None:
    record = example.record().plain()
    schema = schema_of("show")
    for figure in ("NaN", "Infinity", 3.5):
        schema.validate(record | {"tie_margin": figure})
    for wrong in ("three", None, [1.0]):
        with pytest.raises(ValidationError):
            schema.validate(record | {"tie_margin": wrong})


# The document


def test_the_document_describes_every_command_in_its_group_and_every_key_of_what_it_prints() -> None:
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    for group, commands in GROUPS.items():
        assert re.findall(r"^\| `([a-z]+)` \|", parts[group], re.M) == list(commands)
    described = dict(re.findall(r"^\| `([a-z]+)` \| (.*) \|$", parts["JSON"], re.M))
    assert described.keys() == ANSWERS.keys()
    for command in ("check", "list", "diff", "verify", "clean", "doctor"):
        document: dict[str, Any] = dict(schema_of(command).schema)
        named = document.get("items", document)
        named = document["$defs"][named["$ref"].rpartition("/")[2]] if "$ref" in named else named
        assert [key for key in named["properties"] if f"`{key}`" not in described[command]] == []
