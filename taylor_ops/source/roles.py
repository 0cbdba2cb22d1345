"""Which files of a source go along with a release, by their role, and which are left where they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ROLES: dict[str, tuple[str, ...]] = {
    "config": ("config.json",),
    "weights": ("*.safetensors", "*.safetensors.index.json"),
    "generation": ("generation_config.json",),
    "tokenizer": (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "normalizer.json",
        "tekken.json",
        "bpe.codes",
        "*.model",
        "*.tiktoken",
        "*.spm",
    ),
    "chat template": ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    "processor": ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
}
"""Patterns of names by role, relative to the folder. A licence or policy is recognised by words of its name."""

LICENCE = "licence or policy"
_LICENCE = re.compile(
    r"((model|third[_-]party)[_-])?"
    r"(licen[cs]es?|notices?|copying|copyright|patents|terms[_-]of[_-]use|"
    r"use[_-]policy|(acceptable|prohibited)[_-]use([_-]policy)?)"
    r"([.-][\w.-]+)?",
    re.IGNORECASE,
)
# The end of the name of a text, or of a licence.
_TEXTS = re.compile(
    r"(\.(txt|md|rst|pdf|html)|\.\d+|)|"
    r"\.(lesser|a?gpl|lgpl|apache|mit|bsd|mpl|epl|isc|cc|openrail|llama|gemma|qwen|mistral|falcon)[\w-]*",
    re.IGNORECASE,
)
_LICENCE_WORDS = (
    *("licen[cs]e", "notice", "copying", "copyright", "patents", "terms[_-]of[_-]use"),
    *("use[_-]policy", "acceptable[_-]use", "prohibited[_-]use"),
)
_OTHER_TENSORS = ("training_args", "trainer_state", "optimizer", "adapter_")


def role_of(name: str) -> str | None:
    """The role of a file of a model folder, by its path in the folder. None if a release leaves it."""
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts):
        return None
    for role, patterns in ROLES.items():
        for pattern in patterns:
            same_depth = len(path.parts) == len(PurePosixPath(pattern).parts)
            if same_depth and fnmatchcase(name, pattern) and not name.startswith(_OTHER_TENSORS):
                return role
    licence = len(path.parts) == 1 and _LICENCE.fullmatch(name) and _TEXTS.fullmatch(path.suffix)
    return LICENCE if licence else None


def fetched_patterns() -> list[str]:
    """Patterns of everything that a release may read of a repository on the Hub."""
    either_case = (
        re.sub(r"\[([a-z]+)\]|([a-z])", lambda found: f"[{found[0].strip('[]')}{found[0].strip('[]').upper()}]", words)
        for words in _LICENCE_WORDS
    )
    return [pattern for patterns in ROLES.values() for pattern in patterns] + [f"*{words}*" for words in either_case]


def copied_files(place: Path) -> list[str]:
    """The files of a model folder that go along as they are, relative to it, sorted: not config and weights."""
    found = [path.relative_to(place).as_posix() for path in (*place.glob("*"), *place.glob("*/*")) if path.is_file()]
    return sorted(name for name in found if role_of(name) not in (None, "config", "weights"))


def left_files(place: Path) -> list[str]:
    """The files of a model folder that a release leaves, relative to it, sorted. Hidden ones are not named."""
    return left_of(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def left_of(names: Iterable[str]) -> list[str]:
    """The names that have no role, sorted, without hidden ones."""
    seen = (name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts))
    return sorted(name for name in seen if role_of(name) is None)
