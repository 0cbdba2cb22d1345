"""What goes along with weights is used once: a damaged generation config, tokenizer or chat template is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from taylor_ops.errors import BadInput
from taylor_ops.source.usable import notes_on, require_usable
from tests.support.tiny_models import save_tiny_model, tokenizer

CONFIG = SimpleNamespace(vocab_size=260)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A healthy model folder."""
    place = save_tiny_model(tmp_path / "model")
    require_usable(place, CONFIG)
    return place


def change(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(document | changes), encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\\x00"])
@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_no_json_object_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        require_usable(folder, CONFIG)
    assert str(folder) in caught.value.cause


def test_a_damaged_tokenizer_is_named_with_the_line(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "\\u12', encoding="utf-8")
    with pytest.raises(BadInput, match=r"tokenizer\.json cannot be used: Invalid .* line 1 column 15"):
        require_usable(folder, CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_beams": "four"},
        {"num_return_sequences": 3},
        {"suppress_tokens": "abc"},
        {"cache_implementation": "no_such_cache"},
        {"do_sample": True, "temperature": "hot"},
        {"repetition_penalty": -1.0},
    ],
    ids=str,
)
def test_a_generation_config_that_transformers_cannot_use_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    change(folder / "generation_config.json", **changes)
    with pytest.raises(BadInput, match=r"generation_config\.json cannot be used"):
        require_usable(folder, CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_beams": 4, "early_stopping": True, "temperature": 1e-06, "top_p": 0.6, "repetition_penalty": 1.05},
        {"do_sample": True, "top_k": 20},
        {"eos_token_id": [257, 999], "pad_token_id": 258},
        {"max_length": 4, "stop_strings": ["x"]},
    ],
    ids=str,
)
def test_a_generation_config_that_transformers_can_use_is_taken(folder: Path, changes: dict[str, Any]) -> None:
    change(folder / "generation_config.json", **changes)
    require_usable(folder, CONFIG)


@pytest.mark.parametrize(
    "text", ["{% for %}", "{{ messages | no_such_filter }}", "{{ messages.no.such }}", "{{ 1 + 'a' }}"]
)
def test_a_damaged_chat_template_is_refused_by_its_name(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="the chat template `default` is damaged"):
        require_usable(folder, CONFIG)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="the chat template `tool_use` is damaged"):
        require_usable(folder, CONFIG)


def test_a_template_for_tools_may_take_them_for_granted(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    text = "{% for tool in tools %}{{ tool }}{% endfor %}{% for one in documents %}{{ one }}{% endfor %}"
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    require_usable(folder, CONFIG)


def test_a_tokenizer_in_another_file_is_refused_by_its_key(folder: Path) -> None:
    change(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.json"])
    with pytest.raises(BadInput, match="`fast_tokenizer_files` names another tokenizer"):
        require_usable(folder, CONFIG)


def test_a_template_that_refuses_a_chat_in_its_own_words_is_not_damaged(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no chats') }}", encoding="utf-8")
    require_usable(folder, CONFIG)


def test_tokens_that_the_embedding_lacks_and_a_missing_end_are_noted(tmp_path: Path) -> None:
    assert notes_on(tokenizer(), CONFIG) == ()
    made = tokenizer()
    made.add_special_tokens({"pad_token": "[PAD]"})
    (padding,) = notes_on(made, CONFIG)
    assert "the pad_token [PAD] has the id 260, but the embedding ends at 259" in padding
    made.add_tokens(["<|turn|>"], special_tokens=True)
    assert "lacks the added tokens <|turn|>" in notes_on(made, CONFIG)[1]
    assert notes_on(made, SimpleNamespace(vocab_size=262)) == ()
    made.eos_token = made.pad_token
    (once,) = (note for note in notes_on(made, CONFIG) if "[PAD]" in note)
    assert "the eos_token [PAD] has the id 260" in once
    made.eos_token = None
    made.save_pretrained(tmp_path)
    endless = AutoTokenizer.from_pretrained(tmp_path)
    assert "no end token" in notes_on(endless, SimpleNamespace(vocab_size=262))[-1]


def test_a_processor_is_loaded_or_it_is_said_why_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text('{"feature_extractor_type": "WhisperFeatureExtractor"}', encoding="utf-8")
    require_usable(folder, CONFIG)
    assert caplog.text == ""
    path.write_text('{"image_processor_type": "NoSuchProcessor"}', encoding="utf-8")
    require_usable(folder, CONFIG)
    assert f"{path} goes along without having been used" in caplog.text
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match=r"preprocessor_config\.json cannot be used"):
        require_usable(folder, CONFIG)
