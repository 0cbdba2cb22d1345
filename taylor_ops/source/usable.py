"""What goes along with weights is used once by plain transformers: generation config, tokenizer, chat templates.

Processors are loaded, or it is said why they cannot be.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError, TemplateSyntaxError
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from taylor_ops.errors import BadInput
from taylor_ops.source.files import first_line
from taylor_ops.source.roles import ROLES
from taylor_ops.storage.files import read_json

GENERATION = "generation_config.json"
_SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "bos_token_id": None,
    "eos_token_id": None,
}
_HELLO = "Hello"
_PROCESSORS = {"processor_config.json": AutoProcessor, "video_preprocessor_config.json": AutoVideoProcessor}
_REMEDY = "correct or remove the file in the source; transformers cannot use it either"


def require_usable(place: Path, config: Any) -> None:
    """Use each file beside the weights once.

    Args:
        place: The folder of a model.
        config: The config of the model.

    Raises:
        BadInput: A file is damaged, or names what is not there. The error names the file.
    """
    tokenizer = _used_tokenizer(place)
    _require_generation_config(place, int(config.vocab_size), tokenizer)
    templates = tokenizer.chat_template or {}
    for name, template in ({"default": templates} if isinstance(templates, str) else templates).items():
        _require_template(place, tokenizer, name, template)
    for name in ROLES["processor"]:
        if (place / name).exists():
            _use_processor(place / name)


def notes_on(tokenizer: Any, config: Any) -> tuple[str, ...]:
    """What a reader of this model should know of its tokenizer, in words: tokens that are missing, or that do not fit.

    Args:
        tokenizer: The tokenizer. That the end token pads, if it does, is not said a second time.
        config: The config of the model.
    """
    notes, rows = [], int(config.vocab_size)
    for role in ("bos_token", "eos_token", "pad_token"):
        number = getattr(tokenizer, f"{role}_id")
        said = role == "pad_token" and tokenizer.pad_token == tokenizer.eos_token
        if number is not None and number >= rows and not said:
            notes.append(
                f"the {role} {getattr(tokenizer, role)} has the id {number}, but the embedding ends at {rows - 1}: the "
                "release never uses it, and whoever pads with it gets an error. Resize the embedding of the original, "
                "or name another token in tokenizer_config.json"
            )
    beyond = sorted(token for token, number in tokenizer.get_added_vocab().items() if number >= rows)
    others = [token for token in beyond if token not in (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token)]
    if others:
        notes.append(f"the embedding ends at {rows - 1} and lacks the added tokens {', '.join(others[:8])}")
    if tokenizer.eos_token_id is None:
        notes.append("the tokenizer has no end token: a text ends by its length alone")
    return tuple(notes)


def _require_generation_config(place: Path, vocabulary: int, tokenizer: Any) -> None:
    """Generate two tokens under the generation config, by a small model, as the settings mean the same for any."""
    path = place / GENERATION
    if not path.exists():
        return
    try:
        # transformers takes a file that it cannot parse for one that is missing.
        read_json(path)
        settings = GenerationConfig.from_pretrained(place, local_files_only=True)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **_SMALL)).eval()
            ids = torch.zeros((1, 3), dtype=torch.int64)
            model.generation_config = settings
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, tokenizer=tokenizer)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, ImportError) as error:
        raise BadInput(f"{path} cannot be used: {first_line(error)}", _REMEDY) from error


def _use_processor(path: Path) -> None:
    """Load a processor. Why it cannot be is told and no reason to refuse, as a language model never asks for it."""
    try:
        document = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be used: {first_line(error)}", _REMEDY) from error
    loader = _PROCESSORS.get(path.name, AutoImageProcessor)
    if loader is AutoImageProcessor and "feature_extractor_type" in document:
        loader = AutoFeatureExtractor
    try:
        loader.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        logging.getLogger(__name__).warning(
            "%s goes along without having been used: transformers cannot load it here: %s", path, first_line(error)
        )


def _used_tokenizer(place: Path) -> Any:
    path, whole = place / "tokenizer_config.json", place / "tokenizer.json"
    if whole.exists():
        try:
            read_json(whole)
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{whole} cannot be used: {first_line(error)}", _REMEDY) from error
    try:
        another = read_json(path).get("fast_tokenizer_files") if path.is_file() else None
    except (OSError, ValueError, AttributeError):
        another = None
    if another is not None:
        raise BadInput(
            f"{path}: `fast_tokenizer_files` names another tokenizer than tokenizer.json",
            "remove the key, and name the file tokenizer.json",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        tokenizer.decode(tokenizer(_HELLO)["input_ids"])
    # The library `tokenizers` raises `Exception` itself for a damaged file.
    except Exception as error:
        raise BadInput(
            f"{place} has no tokenizer that transformers can read: {first_line(error)}",
            "point `source` at a complete model folder",
        ) from error
    return tokenizer


def _require_template(place: Path, tokenizer: Any, name: str, template: str) -> None:
    """Render one chat. A template that refuses it in words of its own is not damaged."""
    # A template for tools or documents may take for granted that there are some.
    given: dict[str, Any] = {} if name == "default" else {"tools": [], "documents": []}
    try:
        tokenizer.apply_chat_template(
            [{"role": "user", "content": _HELLO}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            **given,
        )
    except TemplateError as error:
        if type(error) is not TemplateError:
            line = f", line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
            what = f"{place}: the chat template `{name}` is damaged{line}"
            raise BadInput(f"{what}: {first_line(error)}", _REMEDY) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{place}: the chat template `{name}` is damaged: {first_line(error)}", _REMEDY) from error
