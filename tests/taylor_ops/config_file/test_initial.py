"""The text of a first config: whatever a source is called, it is YAML that the reader takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource, HubSource
from taylor_ops.config_file.initial import SourceFacts, Target, initial_config
from taylor_ops.config_file.yaml_lines import parsed

FACTS = SourceFacts(
    model="Tiny",
    source={"kind": "folder", "path": "models/tiny"},
    about="Architecture llama, 2 layers.",
    dtype="bfloat16",
    about_dtype="The data type of the source.",
    licence={"license": "mit"},
    about_licence="The licence that the source states.",
)
HUB = {"kind": "hub", "repo_id": "a/b", "revision": "1" * 40}
TARGET = Target(3.0, "About 1.50 to 9.00 are within reach.")
# What a config may hold: no control characters, and no halves of characters.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)


def config_of(text: str) -> ReleaseConfig:
    entry, problems = parsed(text)
    assert problems == []
    return ReleaseConfig.model_validate(entry.plain())


@given(TEXT)
def test_whatever_a_model_is_called_the_config_is_valid(model: str) -> None:
    config = config_of(initial_config(replace(FACTS, model=model), TARGET))
    assert config.name.endswith("-taylor")
    assert config.publish.repo_id.endswith("-Taylor")


@given(TEXT)
def test_texts_of_the_source_are_read_back_as_they_are(text: str) -> None:
    facts = replace(
        FACTS,
        source={"kind": "folder", "path": text},
        licence={"license": "other", "license_name": text, "license_link": text},
    )
    config = config_of(initial_config(facts, TARGET))
    assert config.card.license_name == config.card.license_link == text
    assert config.source == FolderSource(kind="folder", path=Path(text))


@given(TEXT)
def test_what_is_said_in_comments_changes_no_key(text: str) -> None:
    facts = replace(FACTS, about=text, about_dtype=f"{text}\nseed: 1", about_licence=text)
    assert config_of(initial_config(facts, Target(3.0, text))) == config_of(initial_config(FACTS, TARGET))


def test_a_config_says_in_comments_what_a_person_has_to_look_at() -> None:
    text = initial_config(
        replace(FACTS, gated=True, source=HUB, languages=("en", "no")),
        TARGET,
    )
    config = config_of(text)
    assert config.source == HubSource(kind="hub", repo_id="a/b", revision="1" * 40)
    assert config.card.language == ("en", "no")
    assert config.seed == 0
    for told in ("accept its licence", "A commit, never a branch", "Replace my-org", "About 1.50 to 9.00"):
        assert told in text
    assert max(map(len, text.splitlines())) <= 120


def test_an_architecture_that_is_only_recognised_is_accepted_by_name() -> None:
    source = {**FACTS.source, "recognise_architecture": True}
    assert config_of(initial_config(replace(FACTS, source=source), TARGET)).source.recognise_architecture
