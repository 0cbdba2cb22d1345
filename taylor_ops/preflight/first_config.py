"""The first config of a model on the Hub, in a folder or in a GGUF file, with a target within reach."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from huggingface_hub import HfApi
from huggingface_hub.repocard import metadata_load
from pydantic import ValidationError
from yaml import YAMLError

from taylor_ops.config.card import Card
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.section import REPO_ID
from taylor_ops.config.source import GgufSource, HubSource
from taylor_ops.config_file.initial import SourceFacts, Target, initial_config
from taylor_ops.config_file.yaml_lines import parsed
from taylor_ops.errors import BadInput, told_as
from taylor_ops.machine.devices import DTYPES
from taylor_ops.masking import printable
from taylor_ops.model.architectures import ARCHITECTURES
from taylor_ops.model.shape import ModelShape
from taylor_ops.preflight.preflight import estimate
from taylor_ops.preflight.record import Preflight
from taylor_ops.presentation.wording import count, fixed
from taylor_ops.progress import Progress
from taylor_ops.source.gguf import gguf_files
from taylor_ops.source.hub import fetch_file, hub_refusals_explained

# The target of the configs of this project. A plan that protects every neuron should not only just meet it.
_USUAL, _ABOVE_THE_CHEAPEST, _BELOW_THE_DEAREST = 3.0, 1.15, 0.9
_MOST = 100.0
_UNTOLD = Target(_USUAL, "Not estimated yet: `taylor-release plan FILE` says which ones are within reach.")
_NO_LICENCE = "The source states no licence. Find out which one it has, and write it here."


def first_config(model: str, folder: Path, artifacts: Path, progress: Progress, probe: bool = True) -> str:
    """The text of a config for `model`, which `check` finds in order.

    Args:
        model: OWNER/NAME or OWNER/NAME@REVISION on the Hub, the path of a folder, or that of a GGUF file.
        folder: Folder of the config, from which its paths start.
        artifacts: The artifacts folder, beside which a temporary folder is made for the probe.
        progress: Receives the progress of the probe.
        probe: Whether to estimate which target is within reach.

    Raises:
        BadInput: The model is not there, is not readable, or is none that a release can be made of.
    """
    facts = _facts(model, folder)
    text = initial_config(facts, _UNTOLD)
    if not probe:
        return text
    config = ReleaseConfig.model_validate(parsed(text)[0].plain(), context={"folder": folder})
    return initial_config(facts, target_of(estimate(config, artifacts, progress)))


def target_of(found: Preflight) -> Target:
    """A target within reach, at which every neuron is protected: the usual one, unless the cheapest plan is slower."""
    low, high = found.reachable
    cheapest = found.cheapest_slowdown
    basis = "" if found.sample else ", going by bytes alone; `taylor-release plan FILE` says more once they are fetched"
    if high < low * _ABOVE_THE_CHEAPEST:
        return Target(max(round(low, 2), 1.01), f"About this one alone is within reach{basis}.")
    slowdown = max(_USUAL, math.ceil(2 * _ABOVE_THE_CHEAPEST * cheapest) / 2)
    if slowdown > _BELOW_THE_DEAREST * high:
        slowdown = round((cheapest + high) / 2, 2)
    reach = f"About {fixed(low, 2)} to {fixed(high, 2)} are within reach"
    every = f", from {fixed(cheapest, 2)} on with every neuron protected"
    return Target(min(slowdown, _MOST), f"{reach}{every}{basis}.")


def _facts(model: str, folder: Path) -> SourceFacts:
    place = Path(model)
    if place.is_dir():
        return _in_a_folder(place, folder)
    if place.is_file():
        return _in_a_gguf_file(place, folder)
    repo_id, _, revision = model.partition("@")
    if re.fullmatch(REPO_ID, repo_id):
        return _on_the_hub(repo_id, revision)
    raise BadInput(f"`{model}` is no folder, no GGUF file and no OWNER/NAME on the Hub", "correct the path or the name")


def _on_the_hub(repo_id: str, revision: str) -> SourceFacts:
    # Only for the words of errors: the commit is not known yet.
    asked = HubSource.model_construct(kind="hub", repo_id=repo_id, revision=revision or "main")
    try:
        with hub_refusals_explained(asked):
            info = HfApi().model_info(repo_id, revision=revision or None)
        source = HubSource(kind="hub", repo_id=repo_id, revision=str(info.sha))
        with tempfile.TemporaryDirectory(prefix="taylor-init-") as scratch:
            fetch_file(source, "config.json", Path(scratch))
            with told_as(Path(scratch), f"{repo_id} at {source.revision[:12]}"):
                shape = ModelShape(Path(scratch))
    except ValidationError as error:
        raise BadInput(f"the Hub names no commit of {repo_id}: {info.sha}", "check HF_ENDPOINT") from error
    except BadInput as error:
        raise BadInput(error.cause, re.sub(r"`source(\.\w+)?`", "the name of the model", error.remedy)) from error
    card = info.card_data or {}
    dtype, about_dtype = _dtype(shape)
    licence, about_licence = _licence(card.get, f"https://huggingface.co/{repo_id}")
    return SourceFacts(
        model=repo_id.partition("/")[2],
        source={"kind": "hub", "repo_id": repo_id, "revision": source.revision, **_recognised(shape)},
        about=_about(shape),
        dtype=dtype,
        about_dtype=about_dtype,
        licence=licence,
        about_licence=about_licence,
        base_model=repo_id,
        languages=_languages(card.get("language")),
        gated=bool(info.gated),
    )


def _in_a_folder(place: Path, folder: Path) -> SourceFacts:
    shape = ModelShape(place)
    dtype, about_dtype = _dtype(shape)
    card = _metadata(place / "README.md")
    licence, about_licence = _licence(card.get, "LICENSE")
    return SourceFacts(
        model=place.resolve().name,
        source={"kind": "folder", "path": os.path.relpath(place, folder), **_recognised(shape)},
        about=_about(shape),
        dtype=dtype,
        about_dtype=about_dtype,
        licence=licence,
        about_licence=about_licence,
        languages=_languages(card.get("language")),
    )


def _in_a_gguf_file(file: Path, folder: Path) -> SourceFacts:
    files = gguf_files(GgufSource(kind="gguf", file=file))
    try:
        reader = GGUFReader(files[0])
    except (ValueError, OSError, IndexError, KeyError) as error:
        remedy = "name a GGUF file, a folder or a repository"
        raise BadInput(f"{file} cannot be read as a GGUF file: {error}", remedy) from error

    def said(key: str) -> str | None:
        stated = reader.get_field(key)
        return None if stated is None else printable(str(stated.contents()))

    architecture = said("general.architecture") or "not stated"
    layers = said(f"{architecture}.block_count")
    card = {key: said(f"general.{name}") for key, name in (("license", "license"), ("license_link", "license.link"))}
    licence, about_licence = _licence(card.get, "LICENSE")
    return SourceFacts(
        model=re.sub(r"-\d{5}-of-\d{5}$", "", file.stem),
        source={"kind": "gguf", "file": os.path.relpath(file, folder)},
        about=f"Architecture {architecture}" + (f", {layers} layers." if layers else "."),
        dtype="float32",
        about_dtype="A GGUF file is read as float32, whatever it stores.",
        licence=licence,
        about_licence=about_licence,
    )


def _about(shape: ModelShape) -> str:
    layers = count(int(shape.config.num_hidden_layers))
    return f"Architecture {shape.architecture.model_type}, {layers} layers, activation {shape.activation.name}."


def _recognised(shape: ModelShape) -> dict[str, bool]:
    return {} if shape.architecture.model_type in ARCHITECTURES else {"recognise_architecture": True}


def _dtype(shape: ModelShape) -> tuple[str, str]:
    """The data type of a release, and where it comes from in words."""
    stored = str(getattr(shape.config, "dtype", None)).removeprefix("torch.")
    if stored in DTYPES:
        return stored, "The data type of the source."
    return "float32", "The config of the source names no data type that a release may have."


def _licence(stated: Callable[[str], Any], otherwise: str) -> tuple[dict[str, str], str]:
    """The keys of the card for the licence that a source states, and where they come from in words."""
    told = stated("license")
    licence = printable(", ".join(map(str, told)) if isinstance(told, list) else str(told or ""))
    if not licence:
        return {"license": "unknown"}, _NO_LICENCE
    for known in (licence, licence.lower().replace(" ", "-")):
        if _is_card(license=known):
            return {"license": known}, "The licence that the source states."
    name = licence if licence != "other" else printable(str(stated("license_name") or "as the source states"))
    link = printable(str(stated("license_link") or otherwise))
    return {"license": "other", "license_name": name, "license_link": link}, "The licence that the source states."


def _languages(stated: Any) -> tuple[str, ...]:
    """The languages that a source states, if the card may have all of them."""
    languages = tuple(map(str, stated)) if isinstance(stated, list) else (str(stated),) if stated else ()
    return languages if languages and _is_card(license="mit", language=languages) else ()


def _is_card(**keys: Any) -> bool:
    try:
        Card(**keys)
    except ValidationError:
        return False
    return True


def _metadata(card: Path) -> Mapping[str, Any]:
    """The metadata of a model card. Empty if there is none, or none that can be read."""
    try:
        metadata: Mapping[str, Any] | None = metadata_load(card) if card.is_file() else None
    except (ValueError, YAMLError):
        return {}
    return metadata or {}
