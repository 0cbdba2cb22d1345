"""What goes up is used once before it goes up: a converted model that cannot generate as it says is rejected.

So is one whose tokenizer reads the texts otherwise than that of the original.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import GateRejected
from taylor_ops.exactness.validate import validate
from tests.taylor_ops.conftest import CPU, Sample, silent

ONE = TextSource(name="project", builtin="held_out", limit=1)


@pytest.mark.parametrize(
    ("changes", "works"),
    [({"num_beams": 3, "repetition_penalty": 1.2}, True), ({"repetition_penalty": -1.0}, False)],
    ids=["usable", "not usable"],
)
def test_a_bundle_has_to_generate_as_its_own_generation_config_says(
    llama: Sample, tmp_path: Path, changes: dict[str, Any], works: bool
) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    path = bundle / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    settings = Exactness(prompts=(ONE,), running_text=(), new_tokens=4)
    if works:
        assert validate(llama.subject, bundle, settings, CPU, silent).data_sets[0].bundle.prompts_equal == 1
        return
    with pytest.raises(GateRejected, match=r"cannot generate as its generation_config\.json says"):
        validate(llama.subject, bundle, settings, CPU, silent)


def test_a_generation_config_that_transformers_refuses_to_load_is_named(llama: Sample, tmp_path: Path) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    path = bundle / "generation_config.json"
    path.write_text(json.dumps({"max_new_tokens": -1}), encoding="utf-8")
    with pytest.raises(GateRejected, match=r"generation_config\.json is refused by transformers: .*max_new_tokens"):
        validate(llama.subject, bundle, Exactness(prompts=(ONE,), running_text=(), new_tokens=4), CPU, silent)


def test_a_text_that_the_tokenizer_of_the_bundle_reads_otherwise_is_named(llama: Sample, tmp_path: Path) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    path = bundle / "tokenizer.json"
    words = json.loads(path.read_text(encoding="utf-8"))
    words["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(words), encoding="utf-8")
    with pytest.raises(GateRejected, match=r"gives text .* of `project` other tokens than that of the original"):
        validate(llama.subject, bundle, Exactness(prompts=(ONE,), running_text=(), new_tokens=4), CPU, silent)
