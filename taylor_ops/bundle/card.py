"""The model card of a bundle: metadata and text made from what the release states, and from nothing else.

The card is part of the bundle, so equal statements must give equal bytes. It has no date and no path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import TemplateError

from taylor_ops.bundle.card_plots import PLOTS
from taylor_ops.bundle.evaluations import model_index
from taylor_ops.config.card import Card
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import HubSource
from taylor_ops.errors import BadInput
from taylor_ops.presentation.overridden import overridden_in_markdown
from taylor_ops.presentation.templates import environment

_LAYER_ROWS = 8
_DIVERGENCE_ROWS = 20
_PARTS_OF_A_BOUND = ("truncation", "rounding", "marking")
_FIRST = ("license", "base_model", "base_model_relation", "base_model_revision", "language", "library_name")


def render_card(statements: dict[str, Any], config: ReleaseConfig) -> str:
    """The README.md of a bundle: YAML metadata of the Hub, then Markdown.

    Args:
        statements: Everything that the manifest states, except for the hashes of the files. Infinite figures and NaN
            may be strings, as in JSON.
        config: Adds what no measurement can give: licence, base model, languages, tags, contact, repository. It may
            name a template, which replaces the project's own.

    Raises:
        BadInput: The template that the config names uses an unknown name or leaves out the metadata.
    """
    config_yaml = yaml.safe_dump(statements["config"], sort_keys=False, allow_unicode=True, width=120)
    metadata = _metadata(statements, config)
    try:
        text = (
            environment(autoescape=False)
            .from_string(card_template(config.card))
            .render(
                statements,
                metadata=metadata.to_yaml(original_order=list(_FIRST)),
                card=config.card,
                repo_id=config.publish.repo_id,
                one_order=math.isinf(float(statements["conversion"]["tolerance"])),
                layer_ranges=_layer_ranges(statements["conversion"]["layers"], statements["exactness"]["layers"]),
                divergence_rows=_DIVERGENCE_ROWS,
                plots=PLOTS,
                config_yaml=config_yaml,
                fence=_fence(config_yaml),
                overridden_table=overridden_in_markdown(statements.get("overridden", {})),
            )
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        if config.card.template is None:
            raise
        raise _not_a_card(config.card, f"{type(error).__name__}: {error}") from error
    _require_metadata(text, metadata, config.card)
    return text


def _metadata(statements: dict[str, Any], config: ReleaseConfig) -> ModelCardData:
    card = config.card
    more: dict[str, Any] = {}
    if card.license_name:
        more |= {"license_name": card.license_name, "license_link": card.license_link}
    if card.base_model:
        # The Hub knows adapter, finetune, merge and quantized. `finetune` would be false, because nothing was trained.
        # `quantized` is nearest: like quantised weights, these have another form.
        more["base_model_relation"] = "quantized"
        if isinstance(config.source, HubSource) and config.source.repo_id == card.base_model:
            more["base_model_revision"] = config.source.revision
    return ModelCardData(
        license=card.license,
        base_model=card.base_model,
        library_name="transformers",
        pipeline_tag="text-generation",
        language=list(card.language),
        tags=["taylor-mlp", "custom_code", *card.tags],
        model_name=config.name,
        eval_results=model_index(statements, config),
        **more,
    )


def _require_metadata(text: str, metadata: ModelCardData, card: Card) -> None:
    """Read the card with the library of the Hub. Raises `BadInput` if the library does not find all of `metadata`."""
    try:
        found = ModelCard(text).data.to_dict()
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise _not_a_card(card, f"its metadata cannot be read: {error}") from error
    lost = next((key for key, value in metadata.to_dict().items() if found.get(key) != value), None)
    if lost is not None:
        raise _not_a_card(card, f"`{lost}` of the metadata is not in the card that it gives")


def _not_a_card(card: Card, reason: str) -> BadInput:
    return BadInput(
        f"{card.template or 'the template of the card'} makes no card: {' '.join(reason.split())}",
        "correct the template: it begins with three lines `---`, `{{ metadata }}`, `---`; docs/card.md lists the names "
        "that it may use",
    )


def _layer_ranges(layers: Sequence[dict[str, Any]], errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of neighbouring layers put together, so that the table of a deep model is no longer than the others."""
    length = -(-len(layers) // _LAYER_ROWS)
    ranges = []
    for first in range(0, len(layers), length):
        group = layers[first : first + length]
        neurons = sum(layer["neurons"] for layer in group)
        protected = sum(layer["neurons"] - layer["clear"] for layer in group)
        ranges.append(
            {
                "first": first,
                "last": first + len(group) - 1,
                "withheld": protected / neurons,
                "mean_order": sum((layer["neurons"] - layer["clear"]) * layer["mean_order"] for layer in group)
                / protected,
                "max_order": max(layer["max_order"] for layer in group),
                "bound": max(sum(float(layer[part]) for part in _PARTS_OF_A_BOUND) for layer in group),
                "rounding": max(float(layer["rounding"]) for layer in group),
                "measured": max(float(error["largest"]) for error in errors[first : first + length]),
            }
        )
    return ranges


def _fence(text: str) -> str:
    """A code fence that nothing inside `text` closes."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def card_template(card: Card) -> str:
    """The text of the card's template, the project's own unless the config names another.

    It is an input of the stages that depend on the card, so that a changed template makes a new card.
    """
    if card.template is None:
        return (files("taylor_ops") / "templates" / "card.md.j2").read_text(encoding="utf-8")
    try:
        return card.template.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{card.template} cannot be read: {error}", "correct `card.template`") from error
