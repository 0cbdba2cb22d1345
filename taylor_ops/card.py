"""The model card of a bundle: metadata and text made from what the release states, and from nothing else.

The card is part of the bundle, so equal statements give equal bytes: no time, no place, no raw measurement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from taylor_ops.config import ReleaseConfig
from taylor_ops.wording import environment

_LAYER_ROWS = 8
_DIVERGENCE_ROWS = 20


def render_card(statements: dict[str, Any], config: ReleaseConfig) -> str:
    """The README.md of a bundle: YAML metadata of the Hub, then Markdown.

    statements: what the manifest states, but for the hashes of the files. Figures may be strings as JSON has them for
    infinity and NaN. `config` adds what no measurement can say: licence, base model, languages, tags, contact, place.
    """
    config_yaml = yaml.safe_dump(statements["config"], sort_keys=False, allow_unicode=True, width=120)
    return (
        environment(autoescape=False)
        .get_template("card.md.j2")
        .render(
            statements,
            metadata=_metadata(config),
            card=config.card,
            repo_id=config.publish.repo_id,
            one_order=math.isinf(float(statements["conversion"]["tolerance"])),
            layer_ranges=_layer_ranges(statements["conversion"]["layers"], statements["exactness"]["layers"]),
            divergence_rows=_DIVERGENCE_ROWS,
            config_yaml=config_yaml,
            fence=_fence(config_yaml),
        )
    )


def _metadata(config: ReleaseConfig) -> str:
    card = config.card
    # The Hub knows adapter, finetune, merge and quantized. Nothing was trained and the weights have another form, as
    # quantised ones do: `finetune` would be false, `quantized` is nearest.
    relation = {"base_model_relation": "quantized"} if card.base_model else {}
    text: str = ModelCardData(
        license=card.license,
        base_model=card.base_model,
        library_name="transformers",
        pipeline_tag="text-generation",
        language=list(card.language),
        tags=["taylor-mlp", "custom_code", *card.tags],
        **relation,
    ).to_yaml(original_order=["license", "base_model", "base_model_relation", "language", "library_name"])
    return text


def _layer_ranges(layers: Sequence[dict[str, Any]], errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring layers put together, so that a deep model has no longer a table than a shallow one."""
    length = -(-len(layers) // _LAYER_ROWS)
    ranges = []
    for first in range(0, len(layers), length):
        some = layers[first : first + length]
        neurons = sum(layer["neurons"] for layer in some)
        ranges.append(
            {
                "first": first,
                "last": first + len(some) - 1,
                "mean_order": sum(layer["neurons"] * layer["mean_order"] for layer in some) / neurons,
                "max_order": max(layer["max_order"] for layer in some),
                "bound": max(float(layer["truncation"]) + float(layer["rounding"]) for layer in some),
                "rounding": max(float(layer["rounding"]) for layer in some),
                "measured": max(float(error["largest"]) for error in errors[first : first + length]),
            }
        )
    return ranges


def _fence(text: str) -> str:
    """A code fence that nothing inside `text` closes."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def card_template() -> str:
    """The text of the template, so that a changed card is made anew."""
    return (files("taylor_ops") / "templates" / "card.md.j2").read_text(encoding="utf-8")
