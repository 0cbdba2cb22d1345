"""The parameter `overrides`: the schema by which the server judges it, and what the flow makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from prefect.utilities.callables import parameter_schema

from flows.parameters import as_overrides, as_settings, overrides_schema, release_form
from flows.release import release
from taylor_ops.config_file.read import read

CONFIGS = sorted((Path(__file__).parents[2] / "release_configs").glob("*.yaml"))


def mistakes(overrides: dict[str, Any]) -> list[str]:
    """What the schema has against overrides, by place."""
    found = Draft202012Validator(overrides_schema()).iter_errors(overrides)
    return sorted(".".join(map(str, error.path)) for error in found)


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        ({"latency": {"target_slowdown": "fast"}}, ["latency.target_slowdown"]),
        ({"latency": {"target_slowdown": 0.5, "pairs": 1}}, ["latency.pairs", "latency.target_slowdown"]),
        ({"latency": {"target": 3}}, ["latency"]),
        ({"lattency": {}}, [""]),
        ({"latency.target_slowdown": "4"}, [""]),
        ({"version": "1"}, ["version"]),
        ({"conversion": {"basis": "fourier"}}, ["conversion.basis"]),
        ({"source": {"kind": "hub", "repo_id": "a/b"}}, ["source"]),
        ({"publish": {"approval": "yes"}}, ["publish.approval"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place(overrides: dict[str, Any], wrong: list[str]) -> None:
    assert mistakes(overrides) == wrong


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.stem))
def test_every_key_of_a_config_may_be_overridden_and_none_must_be(path: Path) -> None:
    document = read(path).document
    assert mistakes(document) == []
    for section, values in document.items():
        assert mistakes({section: values}) == []
        if isinstance(values, dict) and "kind" not in values:
            assert mistakes({section: dict([next(iter(values.items()))])}) == []


def test_overrides_of_a_form_reach_the_config_as_they_are_typed() -> None:
    overrides = {
        "version": "1.0.1",
        "seed": 3,
        "latency": {"target_slowdown": 4},
        "card": {"contact": "12", "tags": ["a", "b: c"]},
        "source": {"kind": "folder", "path": "/models/x"},
    }
    config = read(CONFIGS[0], as_settings(overrides)).config
    assert (config.version, config.seed, config.latency.target_slowdown) == ("1.0.1", 3, 4)
    assert (config.card.contact, config.card.tags) == ("12", ("a", "b: c"))
    assert config.source.kind == "folder"
    assert config.card.license == read(CONFIGS[0]).config.card.license


def test_settings_of_the_command_line_stay_what_they_are() -> None:
    settings = {"latency.target_slowdown": "4", "seed": "3"}
    assert as_settings(settings) == settings


@pytest.mark.parametrize(
    "settings",
    [
        {"latency.target_slowdown": "4", "latency.pairs": "9", "version": "1.0.1", "card.contact": "'12'"},
        {"calibration.texts": "[{name: mine, file: mine.jsonl}]", "calibration.texts.0.limit": "7"},
        {"source.path": "model", "publish.signing": "null"},
    ],
    ids=["sections", "an item of a list", "a source"],
)
def test_settings_of_the_command_line_go_to_the_server_in_a_form_that_it_judges(
    settings: dict[str, str], tiny_config: Path
) -> None:
    loaded = read(tiny_config, settings)
    overrides = as_overrides(settings, loaded.document)
    assert mistakes(overrides) == []
    assert not any("." in key for key in overrides)
    assert read(tiny_config, as_settings(overrides)).document == loaded.document


def test_the_form_describes_every_parameter_and_every_section() -> None:
    parameters = json.loads(json.dumps(parameter_schema(release.fn).model_dump()))["properties"]
    assert set(parameters) == {"config", "overrides", "artifacts", "expected"}
    assert all(parameter["description"] for parameter in parameters.values())
    sections = parameters["overrides"]["properties"]
    assert sections["latency"]["properties"]["target_slowdown"]["description"].startswith("Decode time of the bundle")
    assert all("required" not in section and "default" not in section for section in sections.values())


def test_the_form_of_a_deployment_is_that_of_the_flow() -> None:
    assert parameter_schema(release_form) == parameter_schema(release)
