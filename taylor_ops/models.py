"""Load the models that a release compares: the original and a bundle, on one device in one dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.errors import BadInput

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_named(name: str) -> torch.device:
    """The device that the config names; `auto` is a GPU where there is one."""
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise BadInput(
            f"device `{name}`: no GPU is visible here", "set `device: cpu` or `auto`, or run on a GPU worker"
        )
    return torch.device(name)


def load_original(folder: Path, dtype: str, device: torch.device) -> Any:
    """The original model in `dtype`, for inference."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], local_files_only=True)
    return model.to(device).eval()


def load_bundle(folder: Path, device: torch.device) -> Any:
    """A bundle as its consumers load it, through its own modeling code."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=True, local_files_only=True)
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, padding on the left, with a padding token even where the model has none."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
