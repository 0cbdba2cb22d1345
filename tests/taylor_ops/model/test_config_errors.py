"""Whatever is wrong with a config.json or an index is said in one line, with the file and the key."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taylor_ops.errors import BadInput
from taylor_ops.model.config_errors import config_errors_named
from taylor_ops.model.shape import ModelShape
from taylor_ops.model.weight_files import INDEX, weight_files
from tests.support.tiny_models import save_tiny_model

DEEP = '{"model_type": "llama", "x": ' + '{"a":' * 100_000 + "1" + "}" * 100_001

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.sampled_from([0, -1, 1, 7, 10**9, 10**15]),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-2, 300), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "rope_theta", "a"]), st.text(max_size=6), max_size=2),
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The config of a tiny model."""
    folder = save_tiny_model(tmp_path_factory.mktemp("config") / "tiny")
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def refusal(folder: Path, text: str) -> str | None:
    """What is said about a config, None if a model can be laid out by it."""
    (folder / "config.json").write_text(text, encoding="utf-8")
    try:
        ModelShape(folder)
    except BadInput as error:
        refused = error
    else:
        return None
    assert refused.exit_status == 2
    assert len(str(refused).splitlines()) == 2
    return refused.cause


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("hidden_act", {"hidden_act": "swooshx"}),
        ("_attn_implementation", {"_attn_implementation": "swoosh"}),
        ("_attn_implementation", {"_attn_implementation": "kernels-community/flash-attn"}),
        ("attn_implementation", {"attn_implementation": 7}),
        ("num_attention_heads", {"num_attention_heads": 0}),
        ("num_key_value_heads", {"num_key_value_heads": 0}),
        ("rope_parameters.rope_type", {"rope_parameters": {"rope_type": "swirl", "rope_theta": 1e4}}),
        ("rope_parameters", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}),
        ("pad_token_id", {"pad_token_id": 5000}),
        ("hidden_size", {"hidden_size": -32}),
        ("hidden_size", {"hidden_size": 10**30}),
        ("intermediate_size", {"intermediate_size": -1}),
        ("dtype", {"dtype": "float7"}),
        ("num_hidden_layers", {"num_hidden_layers": 1_000_000_000}),
        ("num_hidden_layers", {"num_hidden_layers": -2}),
        ("num_hidden_layers", {"num_hidden_layers": 0}),
        ("text_config.num_hidden_layers", {"text_config": {"num_hidden_layers": 1_000_000_000}}),
        ("decoder_layers", {"decoder_layers": 1_000_000_000}),
        ("deep.er.n_routed_experts", {"deep": {"er": {"n_routed_experts": 1_000_000_000}}}),
        ("num_experts", {"num_experts": 10**9}),
        ("transformers_weights", {"transformers_weights": "other.safetensors"}),
    ],
)
def test_the_key_that_is_wrong_is_named(
    document: dict[str, Any], tmp_path: Path, key: str, change: dict[str, Any]
) -> None:
    cause = refusal(tmp_path, json.dumps(document | change))
    assert cause is not None
    assert cause.startswith(f"{tmp_path / 'config.json'}: `{key}`")


@pytest.mark.parametrize("text", [DEEP, "[" * 100_000, '{"model_type": ["llama"]}', '{"model_type": {}}', "\ufeff{}"])
def test_a_config_that_no_parser_takes_is_named(tmp_path: Path, text: str) -> None:
    cause = refusal(tmp_path, text)
    assert cause is not None
    assert str(tmp_path / "config.json") in cause


def test_a_config_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(BadInput, match=r"config\.json cannot be read"):
        ModelShape(tmp_path)


def test_an_error_that_speaks_of_no_key_still_names_the_file_and_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(BadInput) as caught, config_errors_named(path, {"hidden_size": 8}):
        raise RuntimeError("no\nreason")
    assert caught.value.cause == f"{path} is refused by transformers: RuntimeError: no reason"


def test_a_refusal_that_has_its_words_already_keeps_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught, config_errors_named(tmp_path / "config.json", {}):
        raise BadInput("as it is", "do that")
    assert caught.value.cause == "as it is"


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_config_with_any_value_anywhere_is_taken_or_refused_in_one_line(
    document: dict[str, Any], data: st.DataObject
) -> None:
    # A model of a great many layers is laid out, and that takes its time.
    key = data.draw(st.sampled_from(sorted({*document} - {"num_hidden_layers"})))
    value = data.draw(VALUES)
    with tempfile.TemporaryDirectory() as scratch:
        cause = refusal(Path(scratch), json.dumps(document | {key: value}))
    assert cause is None or "\n" not in cause


@settings(deadline=None, max_examples=150)
@given(
    listed=st.one_of(
        VALUES, st.dictionaries(st.text(max_size=4), st.one_of(st.text(max_size=8), st.integers()), max_size=3)
    ),
    metadata=VALUES,
)
def test_an_index_with_any_content_is_refused_in_one_line_with_its_file(listed: Any, metadata: Any) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / INDEX).write_text(json.dumps({"weight_map": listed, "metadata": metadata}), encoding="utf-8")
        with pytest.raises(BadInput) as caught:
            weight_files(folder)
    assert str(folder) in caught.value.cause
    assert len(str(caught.value).splitlines()) == 2


def test_a_wrong_value_is_not_blamed_on_an_architecture_that_transformers_has(tmp_path: Path) -> None:
    document = {"model_type": "gpt2", "n_embd": 32, "n_head": 5, "n_layer": 2, "vocab_size": 50}
    cause = refusal(tmp_path, json.dumps(document))
    assert cause is not None
    assert cause.startswith(str(tmp_path / "config.json"))
    assert "not a causal language model" not in cause
    cause = refusal(tmp_path, json.dumps({"model_type": "t5"}))
    assert cause is not None
    assert "not a causal language model" in cause
