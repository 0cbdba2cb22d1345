"""The captured ranges of a model that is loaded whole: what a capture layer by layer must find, to the bit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.capture.capture import batches_of, kept_of, observed
from taylor_ops.config.texts import Calibration
from taylor_ops.model.loading import load_original, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.texts.prompts import sequences


def ranges_of_whole_model(original: Path, calibration: Calibration, dtype: str = "float32") -> dict[str, Tensor]:
    """What a file of captured ranges holds, by name, from forward passes through the whole model on the CPU."""
    source, model = Original(original), load_original(original, dtype, torch.device("cpu"))
    texts = sequences(calibration.texts, load_tokenizer(original), calibration.tokens, calibration.sequence_tokens)
    with observed(model, source.mlps) as ranges, torch.inference_mode():
        for ids in batches_of(texts, calibration.batch_size):
            model.base_model(input_ids=ids, use_cache=False)
    return kept_of(source, source.mlps, ranges, dtype)
