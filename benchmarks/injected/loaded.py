"""Whether plain transformers loads and uses a model folder as this project reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.model.original import Original


def otherwise_loaded(original: Original, **loading: Any) -> str:
    """In which way plain transformers loads another model than the one that is read, empty if it loads the same.

    Args:
        original: The model as this project reads it.
        loading: What `from_pretrained` is given beside, for instance another folder.
    """
    options: dict[str, Any] = {"pretrained_model_name_or_path": original.folder} | loading
    try:
        theirs, found = AutoModelForCausalLM.from_pretrained(dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:  # noqa: BLE001
        return f"transformers does not load it: {type(error).__name__}: {error}"
    if found["missing_keys"] or found["mismatched_keys"]:
        return f"transformers initialises {sorted(found['missing_keys'])} {sorted(map(str, found['mismatched_keys']))}"
    loaded = theirs.state_dict()
    tied = original.stored_names.tied
    if {*original.shapes, *tied} != {*loaded}:
        return f"transformers loads other tensors: {sorted({*original.shapes, *tied} ^ {*loaded})}"
    for name in original.shapes:
        if not torch.equal(original.tensor(name).float(), loaded[name]):
            return f"transformers loads other values of {name}"
    for copy, name in tied.items():
        if not torch.equal(loaded[copy], loaded[name]):
            return f"transformers loads {copy} apart from {name}"
    return ""


def not_usable(folder: Path) -> str:
    """Why plain transformers cannot say a word with what lies in a folder, empty if it can."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        prompt = tokenizer("Hello", return_tensors="pt", return_token_type_ids=False)
        tokenizer.decode(model.generate(**prompt, max_new_tokens=2)[0])
    except Exception as error:  # noqa: BLE001
        return f"transformers cannot use it: {type(error).__name__}: {error}"
    return ""
