"""Checkpoints that are changed at random and resolved; what is taken is what plain transformers loads."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.injected import ggufs
from benchmarks.injected.case import Answer, Answering, Case, of_call
from benchmarks.injected.loaded import otherwise_loaded
from benchmarks.injected.weights import WEIGHTS, Spoil, Spoilt
from taylor_ops.config.source import FolderSource
from taylor_ops.model.original import Original
from taylor_ops.model.weight_files import INDEX, ONE_FILE
from taylor_ops.progress import silent
from taylor_ops.source.resolve import resolve
from tests.support.layouts import linked, listed_as, other_weights, sharded, tensors, write_index
from tests.support.tiny_models import save_tiny_model

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"model_type": "llama", "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2"},
    "qwen3_moe": {"model_type": "qwen3_moe"},
}


def _second_file(one: Spoilt) -> None:
    names = ("consolidated.safetensors", "model.fp16.safetensors", "adapter_model.safetensors", "zz.safetensors")
    one.change(other_weights(one.draw.choice((*names, "model-00003-of-00003.safetensors"))))
    if one.draw.random() < 0.3:
        (one.folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")


def _one_beside_shards(one: Spoilt) -> None:
    source = one.file
    save_file({name: tensor + 1 for name, tensor in load_file(source).items()}, one.folder / ONE_FILE, {"format": "pt"})


def _stale_index(one: Spoilt) -> None:
    index = one.folder / INDEX
    listed = json.loads(index.read_text("utf-8"))["weight_map"]
    files = sorted({*listed.values()})
    for name in one.draw.sample(sorted(listed), one.draw.choice((1, 3))):
        others = (*files, "gone.safetensors", "a.bin", "../model.safetensors", "/etc/passwd", "")
        match one.draw.randrange(3):
            case 0:
                del listed[name]
            case 1:
                listed[name] = one.draw.choice(others)
            case _:
                listed[f"{name}.old"] = listed.pop(name)
    write_index(one.folder, listed)


def _index_elsewhere(one: Spoilt) -> None:
    outside = one.folder.with_name("outside.safetensors")
    one.change(listed_as("a.safetensors"))
    shutil.copyfile(one.folder / "a.safetensors", outside)
    places = ("../outside.safetensors", str(outside), "./a.safetensors", "sub/../a.safetensors", "a.safetensors/")
    listed = dict.fromkeys(load_file(one.folder / "a.safetensors"), one.draw.choice(places))
    write_index(one.folder, listed)


def _subfolder(one: Spoilt) -> None:
    one.change(listed_as("sub/model.safetensors"))
    if one.draw.random() < 0.5:
        found = load_file(one.folder / "sub" / ONE_FILE)
        save_file({name: tensor + 1 for name, tensor in found.items()}, one.folder / ONE_FILE, {"format": "pt"})


def _link(one: Spoilt) -> None:
    one.change(linked(one.draw.choice(("sub/weights.safetensors", "../elsewhere/weights.safetensors"))))
    if one.draw.random() < 0.3:
        (one.folder / ONE_FILE).unlink()
        (one.folder / ONE_FILE).symlink_to(one.draw.choice((ONE_FILE, "gone", ".", "/dev/zero", "/dev/null")))


def _no_file(one: Spoilt) -> None:
    names = (
        ONE_FILE,
        ONE_FILE,
        "config.json",
        "tokenizer.json",
        "generation_config.json",
        INDEX,
        "LICENSE",
        "merges.txt",
    )
    path = one.folder / one.draw.choice(names)
    path.unlink(missing_ok=True)
    match one.draw.randrange(3):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case _:
            # The address of a socket is short, so it is made here and moved.
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(short := Path("/tmp") / f"chaos-{os.getpid()}"))
                short.rename(path)


def _shards_changed(one: Spoilt) -> None:
    first, second = sorted(one.folder.glob("*.safetensors"))
    match one.draw.randrange(4):
        case 0:
            one.draw.choice((first, second)).unlink()
        case 1:
            (one.folder / INDEX).unlink()
        case 2:
            first.rename(one.folder / "aside")
            second.rename(first)
            (one.folder / "aside").rename(second)
        case _:
            save_file(load_file(first) | load_file(second), second, {"format": "pt"})


def _other_config(one: Spoilt) -> None:
    path = one.folder / "config.json"
    document = json.loads(path.read_text("utf-8"))
    changes: tuple[dict[str, Any], ...] = (
        {"num_hidden_layers": one.draw.choice((1, 3))},
        {"n_layer": one.draw.choice((1, 3))},
        {"tie_word_embeddings": not document.get("tie_word_embeddings", False)},
        {"vocab_size": one.draw.choice((259, 261))},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"intermediate_size": 40},
        {"num_key_value_heads": 4},
        {"transformers_weights": "b.safetensors"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    )
    path.write_text(json.dumps(document | one.draw.choice(changes)), encoding="utf-8")


def _prefix(one: Spoilt) -> None:
    of_gpt2 = json.loads((one.folder / "config.json").read_text("utf-8"))["model_type"] == "gpt2"
    prefix = "transformer." if of_gpt2 else "model."
    gone = one.draw.random() < 0.5

    def change(found: dict[str, Tensor]) -> None:
        for name in sorted(found):
            if gone or one.draw.random() < 0.5:
                found[name.removeprefix(prefix) if gone else f"{prefix}{name}"] = found.pop(name)

    one.change(tensors(change))


def _pickle(one: Spoilt) -> None:
    (one.folder / ONE_FILE).rename(one.folder / one.draw.choice(("pytorch_model.bin", "model.pt", "Model.safetensors")))


def _adapter(one: Spoilt) -> None:
    (one.folder / "adapter_config.json").write_text(one.draw.choice(("{}", "", '{"peft_type": "LORA"}')), "utf-8")


ONE: dict[str, Spoil] = {
    "as it is": lambda _one: None,
    **WEIGHTS,
    "second file": _second_file,
    "index elsewhere": _index_elsewhere,
    "subfolder": _subfolder,
    "link": _link,
    "pipe, folder or socket": _no_file,
    "another config": _other_config,
    "another prefix": _prefix,
    "pickle or another name": _pickle,
    "adapter": _adapter,
}
SHARDS: dict[str, Spoil] = {
    "shards": lambda _one: None,
    "shard cut": WEIGHTS["file cut"],
    "shard with a tensor renamed": WEIGHTS["tensor renamed"],
    "shard without a tensor": WEIGHTS["tensor missing"],
    "one file beside shards": _one_beside_shards,
    "second file beside shards": _second_file,
    "stale index": _stale_index,
    "shards changed": _shards_changed,
}
HARMLESS = ("as it is", "shards", *ggufs.HARMLESS)
"""What is not spoilt has to be taken."""
KINDS = (*ONE, *SHARDS, *ggufs.KINDS)


@contextmanager
def answering(scratch: Path) -> Iterator[Answering]:
    """What spoils a checkpoint and resolves it, in a folder of its own."""
    torch.set_num_threads(1)
    whole = {name: save_tiny_model(scratch / name, **changes) for name, changes in FAMILIES.items()}
    for name, folder in list(whole.items()):
        whole[f"{name} in shards"] = shutil.copytree(folder, scratch / f"{name} in shards")
        sharded(whole[f"{name} in shards"])

    def answer(case: Case) -> Answer:
        place, draw = scratch / "case", random.Random(case.seed)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if case.kind in ggufs.KINDS:
            found = ggufs.answer(case.kind, place, draw)
        else:
            of_shards = case.kind in SHARDS
            family = draw.choice(list(FAMILIES)) + " in shards" * of_shards
            folder = shutil.copytree(whole[family], place / "model")
            (SHARDS if of_shards else ONE)[case.kind](Spoilt(folder, draw))
            found = resolved(folder, place / "work")
        if case.kind in HARMLESS and not found.done:
            return Answer("badly", False, f"nothing is wrong with it, and it is refused {found.why}")
        return found

    yield answer


def resolved(folder: Path, work: Path) -> Answer:
    """How a model folder is resolved."""

    def call() -> str:
        resolve(FolderSource(kind="folder", path=folder), work, silent)
        return otherwise_loaded(Original(folder))

    return of_call(call, (folder,))
