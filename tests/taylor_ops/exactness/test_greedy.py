"""One way to generate: every setting of transformers that changes tokens is overridden, in every run that compares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from taylor_ops.exactness.generation import continue_greedily
from taylor_ops.exactness.greedy import GREEDY, NO_TOKEN, OF_THE_RUN
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.texts.prompts import Prompt
from taylor_ops.verification import consumer
from tests.taylor_ops.conftest import CPU, Sample

SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0},
    {"do_sample": True, "temperature": 3.0, "top_k": 7, "top_p": 0.6, "min_p": 0.1},
    {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "encoder_repetition_penalty": 2.0},
    {"num_return_sequences": 3, "num_beams": 3},
    {"stop_strings": ["a", "e", " "], "max_time": 0.001},
    {"forced_eos_token_id": 41, "max_length": 3, "suppress_tokens": list(range(0, 200, 2))},
    {"guidance_scale": 3.0, "renormalize_logits": True, "prompt_lookup_num_tokens": 2},
    {"use_cache": False, "watermarking_config": {"greenlist_ratio": 0.5, "bias": 20.0}},
]


def test_every_setting_of_transformers_is_classified() -> None:
    """A setting that a new version of transformers brings has to be put into one of the three sets."""
    assert not (set(GREEDY) & OF_THE_RUN) | (set(GREEDY) & NO_TOKEN) | (OF_THE_RUN & NO_TOKEN)
    assert set(vars(GenerationConfig())) == set(GREEDY) | OF_THE_RUN | NO_TOKEN


def test_the_settings_are_the_defaults_of_transformers_where_it_has_any() -> None:
    defaults = GenerationConfig._get_default_generation_params()
    assert {name: GREEDY[name] for name in defaults if name in GREEDY and name != "max_length"} == {
        name: value for name, value in defaults.items() if name in GREEDY and name != "max_length"
    }


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
def test_validate_and_the_verifier_say_the_same_whatever_a_generation_config_asks(
    llama: Sample, tmp_path: Path, settings: dict[str, Any]
) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    path = bundle / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    asked = [Prompt("a", "kind", (40, 41, 42)), Prompt("b", "kind", (50, 51, 52, 53, 54))]
    plain = continue_greedily(load_original(llama.original, "float32", CPU), asked, 8, 2, 0)
    again = continue_greedily(load_bundle(bundle, CPU), asked, 8, 2, 0)
    said = [text.tokens for text in plain]
    assert all(torch.equal(one, other.tokens) for one, other in zip(said, again, strict=True))
    consumed = consumer.continued(str(bundle), [list(prompt.tokens) for prompt in asked], 8, GREEDY)
    assert consumed == [tokens.tolist() for tokens in said]
