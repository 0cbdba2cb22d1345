"""Texts that ask for more positions than a model has are refused by the key that asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.model.loading import load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.texts.readable import require_readable
from tests.support.tiny_models import save_tiny_model

POSITIONS = 128
LONGEST = "the longest prompt of `short`, and `new_tokens` of `exactness` or `audit`: "
FITS: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0.0",
    "calibration": {"sequence_tokens": 128},
    "latency": {"prompt_tokens": 120, "new_tokens": 8, "also": [{"batch_size": 2, "prompt_tokens": 120}]},
    "exactness": {"running_text": [], "new_tokens": 8},
    "audit": {"new_tokens": 8},
    "card": {"license": "mit"},
    "publish": {"repo_id": "example-org/tiny"},
}


@pytest.mark.parametrize(
    ("section", "changes", "asks"),
    [
        ("calibration", {"sequence_tokens": 129}, "`calibration.sequence_tokens`: 129 tokens"),
        ("latency", {"prompt_tokens": 121}, "`latency.prompt_tokens` and `latency.new_tokens`: 129 tokens"),
        (
            "latency",
            {"also": [{"batch_size": 1, "prompt_tokens": 8}, {"batch_size": 1, "prompt_tokens": 512}]},
            "entry 2 of `latency.also`, and `latency.new_tokens`: 520 tokens",
        ),
        (
            "exactness",
            {"new_tokens": 128},
            LONGEST,
        ),
        ("audit", {"new_tokens": 128}, LONGEST),
        # Each of its lines is short; what is run is cut out of all of them.
        ("exactness", {"running_text": [{"name": "long", "builtin": "held_out"}]}, "`exactness.running_tokens`"),
    ],
)
@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("gpt2", {"n_positions": POSITIONS, "max_position_embeddings": POSITIONS}),
        ("opt", {"max_position_embeddings": POSITIONS}),
        ("llama", {"max_position_embeddings": POSITIONS}),
    ],
)
def test_more_tokens_at_once_than_learned_positions_are_refused_by_the_key_that_asks_for_them(
    tmp_path: Path, model_type: str, sizes: dict[str, int], section: str, changes: dict[str, Any], asks: str
) -> None:
    folder = save_tiny_model(tmp_path / "original", model_type, **sizes)
    prompts = tmp_path / "short.txt"
    prompts.write_text("One short prompt.\n", encoding="utf-8")
    fits = FITS | {"source": {"kind": "folder", "path": str(folder)}}
    fits["exactness"] = fits["exactness"] | {"prompts": [{"name": "short", "file": str(prompts)}]}

    def read(document: dict[str, Any]) -> None:
        config = ReleaseConfig.model_validate(document)
        require_readable(config, Original(folder), load_tokenizer(folder))

    read(fits)
    if model_type == "llama":
        # Rotary positions go on.
        read(fits | {section: fits[section] | changes})
        return
    with pytest.raises(BadInput, match=asks) as caught:
        read(fits | {section: fits[section] | changes})
    assert "the model has 128 positions" in caught.value.cause
    assert "128 or less" in caught.value.remedy
