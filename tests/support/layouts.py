"""Changes of the folder of a tiny model: other layouts of the same weights, and other weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.model.weight_files import INDEX, ONE_FILE

GATE = "model.layers.1.mlp.gate_proj.weight"
HEAD, WORDS = "lm_head.weight", "model.embed_tokens.weight"
Change = Callable[[Path], object]


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Change:
    """Change the tensors in `model.safetensors`."""

    def changed(folder: Path) -> None:
        found = load_file(folder / ONE_FILE)
        change(found)
        save_file({name: one.contiguous() for name, one in found.items()}, folder / ONE_FILE, {"format": "pt"})

    return changed


def named(rename: Callable[[str], str]) -> Change:
    """Store each tensor under another name."""

    def change(found: dict[str, Tensor]) -> None:
        for name in list(found):
            found[rename(name)] = found.pop(name)

    return tensors(change)


def config(**changes: Any) -> Change:
    """Change `config.json`."""

    def changed(folder: Path) -> None:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(document | changes), encoding="utf-8")

    return changed


def sharded(folder: Path) -> None:
    """Save the model in several shards with an index."""
    found = load_file(folder / ONE_FILE)
    (folder / ONE_FILE).unlink()
    names = sorted(found)
    listed = {}
    for number, own in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: found[name] for name in own}, folder / file, {"format": "pt"})
        listed.update(dict.fromkeys(own, file))
    write_index(folder, listed)


def write_index(folder: Path, listed: dict[str, str]) -> None:
    document = {"metadata": {"total_size": 0}, "weight_map": listed}
    (folder / INDEX).write_text(json.dumps(document), encoding="utf-8")


def listed_as(file: str) -> Change:
    """An index that names one file for all tensors."""

    def changed(folder: Path) -> None:
        write_index(folder, dict.fromkeys(load_file(folder / ONE_FILE), file))
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / ONE_FILE).rename(folder / file)

    return changed


def other_weights(file: str) -> Change:
    """Another file with the same tensors, and other values in them."""

    def changed(folder: Path) -> None:
        source = next(iter(sorted(folder.glob("model*.safetensors"))))
        save_file({name: one + 1 for name, one in load_file(source).items()}, folder / file, {"format": "pt"})

    return changed


def linked(target: str) -> Change:
    """The weights as a link to a file elsewhere."""

    def changed(folder: Path) -> None:
        place = folder / target
        place.parent.mkdir(exist_ok=True, parents=True)
        (folder / ONE_FILE).rename(place)
        (folder / ONE_FILE).symlink_to(os.path.relpath(place, folder))

    return changed


def both(*changes: Change) -> Change:
    def changed(folder: Path) -> None:
        for change in changes:
            change(folder)

    return changed


def stacked_one_by_one(found: dict[str, Tensor]) -> None:
    """Store the experts one by one, as the Hub has them."""
    for name in [name for name in found if name.endswith((".gate_up_proj", ".down_proj")) and ".experts." in name]:
        module, values = name.rpartition(".")[0], found.pop(name)
        for expert, weight in enumerate(values):
            parts = {"gate_proj": weight.chunk(2)[0], "up_proj": weight.chunk(2)[1]}
            for layer, part in (parts if name.endswith("gate_up_proj") else {"down_proj": weight}).items():
                found[f"{module}.{expert}.{layer}.weight"] = part.clone()


def without_model(name: str) -> str:
    return name.removeprefix("model.")
