"""The parameters of the flow: the run form of the UI, and what the arguments of the command line become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from flows.parameters import as_more, as_settings, release_form
from flows.release import release
from taylor_ops.config_file.read import read
from taylor_ops.config_file.schema import schema
from tests.support.config_example import VALID, written
from tests.support.run_form import prefilled

CONFIGS = sorted((Path(__file__).parents[2] / "release_configs").glob("*.yaml"))
FIELDS = ["config", "version", "target_slowdown", "publish_to", "comment", "dry_run", "more", "artifacts", "expected"]


def form() -> dict[str, Any]:
    """The schema that a deployment gets, as the server stores it."""
    described: dict[str, Any] = json.loads(json.dumps(parameter_schema(release_form).model_dump_for_openapi()))
    return described


def test_the_form_of_a_deployment_is_that_of_the_flow() -> None:
    assert parameter_schema(release_form) == parameter_schema(release)


def test_the_form_has_few_fields_in_their_order_each_with_a_description() -> None:
    fields = form()["properties"]
    assert sorted(fields, key=lambda name: fields[name]["position"]) == FIELDS
    assert all(field["description"] for field in fields.values())
    assert form()["required"] == ["config"]
    assert all("properties" not in field for field in fields.values())


def test_an_untouched_form_asks_for_nothing_but_what_the_config_says() -> None:
    sent = prefilled(form(), {"config": "release_configs/smollm2.yaml"})
    assert sent == {
        "config": "release_configs/smollm2.yaml",
        "version": "",
        "target_slowdown": None,
        "publish_to": "",
        "comment": "",
        "dry_run": False,
        "more": "",
        "artifacts": "artifacts",
        "expected": "",
    }
    assert as_settings(sent["version"], sent["target_slowdown"], sent["publish_to"]) == {}
    # What the server does with them before it creates a run.
    assert validate(sent, form(), raise_on_error=True) == []
    assert validate({"config": sent["config"]}, form(), raise_on_error=True) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "1"),
        ("target_slowdown", "fast"),
        ("target_slowdown", 1),
        ("target_slowdown", 101),
        ("publish_to", "hub"),
        ("publish_to", "owner/name/more"),
        ("dry_run", "yes"),
        ("more", {"seed": 3}),
        ("expected", "tiny"),
    ],
)
def test_a_wrong_value_is_refused_by_the_schema(field: str, value: Any) -> None:
    assert validate({"config": "tiny.yaml", field: value}, form()) != []


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        (("1.0.1", None, ""), {"version": '"1.0.1"'}),
        (("", 4, None), {"latency.target_slowdown": "4"}),
        ((None, None, "folder"), {"publish.target": '"folder"'}),
        (("", None, "owner/other"), {"publish.repo_id": '"owner/other"'}),
    ],
)
def test_a_field_is_one_key_of_the_config(fields: tuple[Any, Any, Any], keys: dict[str, str]) -> None:
    assert as_settings(*fields) == keys
    for config in CONFIGS:
        assert set(read(config, keys).overridden) <= set(keys)


def test_the_field_of_the_slowdown_has_the_limits_of_the_config() -> None:
    (number, nothing) = form()["properties"]["target_slowdown"]["anyOf"]
    limits = schema()["$defs"]["Latency"]["properties"]["target_slowdown"]
    assert nothing == {"type": "null"}
    assert number.items() <= limits.items()


@pytest.mark.parametrize(
    "set_to",
    [
        {"latency.target_slowdown": "4", "latency.pairs": "9", "version": "1.0.1", "card.contact": "'12'"},
        {"calibration.texts": "[{name: mine, file: mine.jsonl}]", "calibration.texts.0.limit": "7"},
        {"source.path": "model", "publish.signing": "null", "conversion.tolerance": "1e-9"},
        {"source": "{kind: gguf, file: tiny.gguf}", "seed": "0"},
        {},
    ],
    ids=["sections", "an item of a list", "a source and no signing", "another kind of source", "nothing"],
)
def test_what_is_set_on_the_command_line_is_the_same_in_more(set_to: dict[str, str], tiny_config: Path) -> None:
    loaded, again = read(tiny_config, set_to), read(tiny_config, {}, as_more(set_to))
    assert again.document == loaded.document
    assert again.overridden == loaded.overridden


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


@settings(deadline=None, max_examples=100)
@given(
    contact=st.text(
        st.characters(exclude_categories=["Cc", "Cn", "Cs"], exclude_characters="\u2028\u2029"), max_size=30
    )
)
def test_any_text_that_is_set_is_the_same_in_more(folder: Path, contact: str) -> None:
    more = as_more({"card.contact": json.dumps(contact, ensure_ascii=False)})
    assert read(written(folder, VALID), {}, more).config.card.contact == contact
