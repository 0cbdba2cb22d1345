"""The first config of a model as commented YAML, from what is known of its source."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from taylor_ops.config_file.yaml_lines import parsed

_LONGEST_NAME = 90
_COMMENT_WIDTH = 100
_NOT_IN_YAML = re.compile("[^\\s\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class SourceFacts:
    """What the first config of a model is written from.

    Attributes:
        model: Name of the model, without its owner, its folder or the suffix of its file.
        source: The keys of the section `source`, in the order in which they are written.
        about: Architecture and size, in words.
        dtype: Data type of the release.
        about_dtype: Where that comes from, in words.
        licence: The keys of the section `card` that state the licence.
        about_licence: Where these come from, in words.
        base_model: Repository of the model on the Hub. None if it has none.
        languages: Codes of its languages. Empty if they are not known.
        gated: Whether an account has to accept terms before it may fetch the source.
    """

    model: str
    source: Mapping[str, str | bool]
    about: str
    dtype: str
    about_dtype: str
    licence: Mapping[str, str]
    about_licence: str
    base_model: str | None = None
    languages: tuple[str, ...] = ()
    gated: bool = False


class Target(NamedTuple):
    """A target slowdown, and why it is this one."""

    slowdown: float
    why: str


def initial_config(facts: SourceFacts, target: Target) -> str:
    """The text of the config. It names every key that a person has to look at, and says why in comments."""
    lines = [
        *_comment("Made by `taylor-release init`. Next: `check FILE`, then `plan FILE`, then `run FILE`.", ""),
        *_comment("docs/release-config.md describes every key; those that are not here have defaults.", ""),
        "",
        *_pair("name", _release_name(facts.model), ""),
        *_pair("version", "1.0.0", ""),
        "",
        *_comment(facts.about, ""),
        "source:",
    ]
    if facts.gated:
        lines += _comment("It is gated: accept its licence on the Hub, then log in or set HF_TOKEN.")
    for key, value in facts.source.items():
        if key == "revision":
            lines += _comment("A commit, never a branch, because the same config must give the same bundle.")
        if key == "recognise_architecture":
            lines += _comment("It is not known by name, but its MLPs look like known ones; the gates prove it.")
        lines += _pair(key, value)
    lines += ["", "conversion:", *_comment(facts.about_dtype), *_pair("dtype", facts.dtype)]
    lines += ["", "latency:"]
    lines += _comment("Decode time of the bundle divided by the decode time of the original.")
    lines += [*_comment(target.why), f"  target_slowdown: {target.slowdown:g}"]
    lines += ["", "card:", *_comment(facts.about_licence)]
    for key, value in facts.licence.items():
        lines += _pair(key, value)
    if facts.base_model is not None:
        lines += _pair("base_model", facts.base_model)
    if facts.languages:
        lines.append(f"  language: [{', '.join(map(_scalar, facts.languages))}]")
    lines += ["", "publish:"]
    lines += _comment("Into hub/<repo_id>/<version> below the artifacts folder. `hub` publishes on the Hub.")
    lines += _pair("target", "folder")
    lines += [*_comment("Replace my-org by your account or organisation."), *_pair("repo_id", _repository(facts.model))]
    return "\n".join(lines) + "\n"


def _release_name(model: str) -> str:
    """A name of a release: small letters, digits, dots and dashes."""
    name = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[:_LONGEST_NAME]
    return f"{name or 'model'}-taylor"


def _repository(model: str) -> str:
    """A name of a repository that the Hub accepts, without an owner of its own."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", model)
    name = re.sub(r"([-.])[-.]+", r"\1", name).strip("-._")[: _LONGEST_NAME - len("my-org/-Taylor")].strip("-._")
    return f"my-org/{name or 'model'}-Taylor"


def _pair(key: str, value: str | bool, indent: str = "  ") -> list[str]:
    return [f"{indent}{key}: {json.dumps(value) if isinstance(value, bool) else _scalar(value)}"]


def _scalar(text: str) -> str:
    """The text as YAML reads it back, in quotes only if it would be read as something else without."""
    escaped = json.dumps(text)
    return next((form for form in (text, json.dumps(text, ensure_ascii=False)) if _reads_back(form, text)), escaped)


def _reads_back(form: str, text: str) -> bool:
    # In a list, because a comma or a bracket would end it there.
    entry, problems = parsed(f"[{form}]")
    items = entry.value if isinstance(entry.value, list) else []
    return not problems and len(items) == 1 and bool(items[0].value == text)


def _comment(text: str, indent: str = "  ") -> list[str]:
    """A text from anywhere as lines of a comment."""
    lines, line = [], ""
    for word in _NOT_IN_YAML.sub("?", text).split():
        if line and len(line) + 1 + len(word) > _COMMENT_WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [f"{indent}# {one}" for one in (*lines, line) if one]
