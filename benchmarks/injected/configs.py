"""Configs that are changed at random: release configs for `check`, and those of a model for `plan`."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.injected.case import Answer, Answering, Case, of_command
from benchmarks.injected.loaded import not_usable, otherwise_loaded
from taylor_ops.config.source import FolderSource
from taylor_ops.config_file.read import read
from taylor_ops.model.original import Original
from taylor_ops.model.weight_files import INDEX
from taylor_ops.source.resolve import readable
from tests.support.commands import called_here
from tests.support.layouts import sharded
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import write_tiny_config

_TEXTS = (
    "",
    "x",
    "a--b",
    "../up",
    "/etc",
    "0",
    "nan",
    "\x1b[31m",
    "é",
    "a b",
    "{{",
    "hf_x",
    "1.0.0",
    "\ud800",
    "y" * 200,
)
_NUMBERS = (0, 1, -1, 7, -7, 3, 2.5, -0.0, 1e-9, 1e300, 10**9, 10**15, 10**30, float("inf"), float("nan"))
_WORDS = ("rope_type", "yarn", "factor", "default", "type", "gelu", "float7", "bfloat16", "llama", "sdpa", "auto_map")


def _value(draw: random.Random, depth: int = 2) -> Any:
    """Any value that JSON and YAML can hold."""
    kind = draw.randrange(8 if depth else 5)
    if kind < 2:
        return draw.choice(_NUMBERS)
    if kind < 4:
        return draw.choice(_TEXTS + _WORDS)
    if kind == 4:
        return draw.choice((None, True, False))
    inner = [_value(draw, depth - 1) for _ in range(draw.randrange(3))]
    return inner if kind < 7 else {draw.choice(_WORDS): one for one in inner}


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a document, as what holds it and its key."""
    found: list[tuple[Any, Any]] = []
    keys = document.keys() if isinstance(document, dict) else range(len(document))
    for key in keys:
        found.append((document, key))
        if isinstance(document[key], dict | list):
            found += _places(document[key])
    return found


def _another_value(draw: random.Random, document: Any) -> None:
    holder, key = draw.choice(_places(document))
    holder[key] = _value(draw)


def _another_number(draw: random.Random, document: Any) -> None:
    numbers = [(holder, key) for holder, key in _places(document) if type(holder[key]) in (int, float)]
    holder, key = draw.choice(numbers)
    holder[key] = draw.choice((*_NUMBERS, holder[key] + 1, 2 * holder[key], -holder[key], str(holder[key])))


def _key_away(draw: random.Random, document: Any) -> None:
    holder, key = draw.choice(_places(document))
    del holder[key]


def _key_more(draw: random.Random, document: Any) -> None:
    holder = draw.choice([document, *(one[key] for one, key in _places(document) if isinstance(one[key], dict))])
    holder[draw.choice(("extra", "num_layers", "text_config", "dtype", "kind", *_WORDS))] = _value(draw)


def _two_swapped(draw: random.Random, document: Any) -> None:
    (one, first), (other, second) = draw.sample([(document, key) for key in document], 2)
    one[first], other[second] = other[second], one[first]


def _nested(draw: random.Random, document: Any) -> None:
    holder, key = draw.choice(_places(document))
    for _ in range(draw.choice((3, 30, 300))):
        holder[key] = draw.choice(([holder[key]], {"a": holder[key]}))


Spoil = Callable[[random.Random, Any], None]
SPOILS: dict[str, Spoil] = {
    "another value": _another_value,
    "another number": _another_number,
    "a key away": _key_away,
    "a key more": _key_more,
    "two values swapped": _two_swapped,
    "nested": _nested,
}


def spoilt_bytes(draw: random.Random, whole: bytes) -> bytes:
    """A file of which a part is away, there twice, or other bytes."""
    begin, length = draw.randrange(len(whole) + 1), draw.choice((1, 1, 8, 64, len(whole)))
    head, part, tail = whole[:begin], whole[begin : begin + length], whole[begin + length :]
    others = (b"", part + part, draw.randbytes(length), b"\x00", b"\xef\xbb\xbf", b"\t", b"{" * 20_000, b"\xff")
    return head + draw.choice(others) + tail


YAML = "release config"
FILES = {
    YAML: (*SPOILS, "spoilt bytes"),
    "config.json": (*SPOILS, "spoilt bytes"),
    INDEX: ("another value", "a key away", "two values swapped", "spoilt bytes"),
    "generation_config.json": ("another value", "a key more", "spoilt bytes"),
    "tokenizer_config.json": ("another value", "a key away", "spoilt bytes"),
    "tokenizer.json": ("another value", "a key away", "spoilt bytes"),
}
KINDS = tuple(f"{file}: {spoil}" for file, spoils in FILES.items() for spoil in spoils)


@contextmanager
def answering(scratch: Path) -> Iterator[Answering]:
    """What spoils a config and asks a command of it, in a folder of its own."""
    torch.set_num_threads(1)
    model = save_tiny_model(scratch / "model")
    shards = shutil.copytree(model, scratch / "shards")
    sharded(shards)
    called_here("plan", write_tiny_config(scratch / "tiny.yaml", model), "--artifacts", scratch / "artifacts")

    def answer(case: Case) -> Answer:
        file, _, spoil = case.kind.partition(": ")
        place = scratch / "case"
        shutil.rmtree(place, ignore_errors=True)
        draw = random.Random(case.seed)
        if file == YAML:
            place.mkdir()
            spoil_document(write_tiny_config(place / "tiny.yaml", model), spoil, draw)
            return _checked(place / "tiny.yaml")
        folder = shutil.copytree(shards if file == INDEX else model, place / "model")
        spoil_document(folder / file, spoil, draw)
        return _planned(write_tiny_config(place / "tiny.yaml", folder), folder)

    yield answer


def spoil_document(path: Path, spoil: str, draw: random.Random) -> None:
    """Change a YAML or JSON file at random."""
    if spoil == "spoilt bytes":
        path.write_bytes(spoilt_bytes(draw, path.read_bytes()))
        return
    as_yaml = path.suffix == ".yaml"
    document = (yaml.safe_load if as_yaml else json.loads)(path.read_text("utf-8"))
    SPOILS[spoil](draw, document)
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False) if as_yaml else json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _checked(path: Path) -> Answer:
    """`check` says the errors of a config, each with its line, or takes it, and then it reads the same once more."""
    done = called_here("check", path)
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        last = len(path.read_bytes().decode("utf-8", "replace").splitlines()) or 1
        for line in lines or [""]:
            found = re.match(rf"{re.escape(str(path))}:(\d+): ", line)
            if done.returncode != 2 or found is None or not 1 <= int(found[1]) <= last or not line.isprintable():
                return Answer("badly", False, f"{done.returncode}: {done.stderr}")
        return Answer("well", False)
    loaded = read(path)
    again = path.with_name("again.yaml")
    again.write_text(json.dumps(loaded.document, allow_nan=False), encoding="utf-8")
    same = read(again).config == loaded.config
    return Answer("well" if same else "wrong accept", True, "" if same else "read once more it is another config")


def _planned(config: Path, folder: Path) -> Answer:
    """`plan` refuses a model with file or key, or takes it, and then plain transformers loads and uses the same."""

    def taken() -> str:
        readable(folder, FolderSource(kind="folder", path=folder))
        return otherwise_loaded(Original(folder)) or not_usable(folder)

    done = called_here("plan", config, "--artifacts", config.with_name("artifacts"))
    return of_command(done, (folder, "target slowdown", "latency.", "exactness.", "calibration.", "`source."), taken)
