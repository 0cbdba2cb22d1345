"""The model card of a bundle: metadata and text made from what the release states, and from nothing else.

The card is part of the bundle, so equal statements give equal bytes: no date, no place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import TemplateError

from taylor_ops.bundle.card_plots import PLOTS
from taylor_ops.config.card import Card
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import HubSource
from taylor_ops.errors import BadInput
from taylor_ops.presentation.templates import environment

_LAYER_ROWS = 8
_DIVERGENCE_ROWS = 20
_PARTS_OF_A_BOUND = ("truncation", "rounding", "marking")
_FIRST = ("license", "base_model", "base_model_relation", "base_model_revision", "language", "library_name")


def render_card(statements: dict[str, Any], config: ReleaseConfig) -> str:
    """The README.md of a bundle: YAML metadata of the Hub, then Markdown, by the project's template or the team's own.

    statements: what the manifest states, but for the hashes of the files. Figures may be strings as JSON has them for
    infinity and NaN. `config` adds what no measurement can say: licence, base model, languages, tags, contact, place.
    Raises `BadInput` where a template of the team's own asks for what there is not, or leaves the metadata out.
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
        # The Hub knows adapter, finetune, merge and quantized. Nothing was trained and the weights have another form,
        # as quantised ones do: `finetune` would be false, `quantized` is nearest.
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
        eval_results=_results(statements, config),
        **more,
    )


def _results(statements: dict[str, Any], config: ReleaseConfig) -> list[EvalResult]:
    """What of the exactness fits the Hub's `model-index`: shares of prompts continued alike, and perplexities."""
    texts = (*config.exactness.prompts, *config.exactness.running_text)
    hub_name = {text.name: text.dataset.name for text in texts if text.dataset and text.dataset.name}

    def result(name: str, kind: str, value: float, words: str) -> EvalResult:
        return EvalResult(
            task_type="text-generation",
            dataset_type=hub_name.get(name, name),
            dataset_name=name,
            metric_type=kind,
            metric_name=words,
            metric_value=value,
        )

    alike = [
        result(
            data_set["name"],
            "exact_match",
            data_set["bundle"]["prompts_equal"] / data_set["bundle"]["prompts"],
            f"Share of prompts continued with the tokens of the original, {statements['exactness']['new_tokens']} each",
        )
        for data_set in statements["exactness"]["data_sets"]
        if data_set["bundle"]["prompts"]
    ]
    perplexities = [
        result(text["name"], "perplexity", float(text["bundle"]), "Perplexity")
        for text in statements["exactness"]["perplexity"]
        if math.isfinite(float(text["bundle"]))
    ]
    return alike + perplexities


def _require_metadata(text: str, metadata: ModelCardData, card: Card) -> None:
    """Read the card with the library of the Hub; `BadInput` where that does not find what was meant."""
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
        "correct the template: it begins with three lines `---`, `{{ metadata }}`, `---`, and docs/card.md says what "
        "else it is given",
    )


def _layer_ranges(layers: Sequence[dict[str, Any]], errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring layers put together, so that a deep model has no longer a table than a shallow one."""
    length = -(-len(layers) // _LAYER_ROWS)
    ranges = []
    for first in range(0, len(layers), length):
        some = layers[first : first + length]
        neurons = sum(layer["neurons"] for layer in some)
        withheld = sum(layer["neurons"] - layer["clear"] for layer in some)
        ranges.append(
            {
                "first": first,
                "last": first + len(some) - 1,
                "withheld": withheld / neurons,
                "mean_order": sum((layer["neurons"] - layer["clear"]) * layer["mean_order"] for layer in some)
                / withheld,
                "max_order": max(layer["max_order"] for layer in some),
                "bound": max(sum(float(layer[part]) for part in _PARTS_OF_A_BOUND) for layer in some),
                "rounding": max(float(layer["rounding"]) for layer in some),
                "measured": max(float(error["largest"]) for error in errors[first : first + length]),
            }
        )
    return ranges


def _fence(text: str) -> str:
    """A code fence that nothing inside `text` closes."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def card_template(card: Card) -> str:
    """The text of the template, the project's or that of a config, so that a changed card is made anew."""
    if card.template is None:
        return (files("taylor_ops") / "templates" / "card.md.j2").read_text(encoding="utf-8")
    try:
        return card.template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{card.template} cannot be read: {error}", "correct `card.template`") from error
