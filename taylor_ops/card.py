"""The model card of a bundle: metadata and text made from what the release states, and from nothing else.

The card is part of the bundle, so equal statements give equal bytes: no time, no place, no raw measurement. How figures
are worded is defined here too, once for the card, the report and the summary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from taylor_ops.config import ReleaseConfig

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
            layer_ranges=_layer_ranges(statements["conversion"]["layers"]),
            divergence_rows=_DIVERGENCE_ROWS,
            config_yaml=config_yaml,
            fence=_fence(config_yaml),
        )
    )


def environment(autoescape: bool) -> Environment:
    """The templates of this package, with figures worded alike in all of them; an unknown name is an error."""
    templates = Environment(
        loader=PackageLoader("taylor_ops"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "count": count,
        "figure": figure,
        "fixed": fixed,
        "percent": percent,
        "plain": _plain,
        "size": size,
    }
    return templates


def count(number: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{number:,}"


def figure(number: float | str, digits: int = 2) -> str:
    """A measured value to so many significant digits; zero, infinity and NaN by name."""
    value = float(number)
    if not math.isfinite(value):
        return _not_finite(value)
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{value:.{digits}g}")


def fixed(number: float | str, decimals: int) -> str:
    """A measured value to so many decimals; infinity and NaN by name."""
    value = float(number)
    return f"{value:.{decimals}f}" if math.isfinite(value) else _not_finite(value)


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "-infinite" if value < 0 else "infinite"


def percent(share: float | str) -> str:
    """A share as a percentage. Only the whole reads 100 % and only nothing reads 0 %, however near a share comes."""
    value = float(share)
    text = fixed(100 * value, 2)
    if text == "100.00":
        return "100 %" if value == 1 else "over 99.99 %" if value < 1 else "over 100 %"
    if text == "0.00":
        return "0 %" if value == 0 else "under 0.01 %"
    if "." in text:
        text = text.rstrip("0").removesuffix(".")
    return f"{text} %"


def size(amount: int) -> str:
    """Bytes in decimal megabytes or gigabytes."""
    return f"{amount / 1e9:.2f} GB" if amount >= 1e9 else f"{amount / 1e6:.1f} MB"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph and in a table cell."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


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


def _layer_ranges(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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
                "error": max(float(layer["error"]) for layer in some),
            }
        )
    return ranges


def _fence(text: str) -> str:
    """A code fence that nothing inside `text` closes."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def card_template() -> str:
    """The text of the template, so that a changed card is made anew."""
    return (files("taylor_ops") / "templates" / "card.md.j2").read_text(encoding="utf-8")
