"""Which files of a model folder hold its weights: those that transformers loads, or a refusal by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter

from taylor_ops.errors import BadInput
from taylor_ops.storage.files import read_json

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_SUFFIX = ".safetensors"
_WEIGHT_MAP = TypeAdapter(dict[str, str])
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FETCH_AGAIN = "fetch the checkpoint again"


@dataclass(frozen=True)
class WeightFiles:
    """The files from which transformers loads a model.

    Attributes:
        holding: Files that hold tensors, relative to the folder, in the order in which transformers reads them. It
            loads every tensor of each.
        listed: The file of each tensor as the index says it, None if no index is read.
    """

    holding: tuple[str, ...]
    listed: dict[str, str] | None = None

    def read(self) -> tuple[str, ...]:
        """All files that are read, the index included, relative to the folder."""
        return self.holding if self.listed is None else (INDEX, *self.holding)


def weight_files(folder: Path) -> WeightFiles:
    """The files of a model folder that transformers loads: `model.safetensors`, or else those that the index names.

    Raises:
        BadInput: There are none, a file is missing or outside of the folder, the weights are a pickle, the index is
            none, or the folder is an adapter.
    """
    if (folder / _ADAPTER).exists():
        raise BadInput(
            f"{folder} holds {_ADAPTER}: transformers would load another model and put an adapter into it",
            "merge the adapter and save the model, or remove the file if that was done",
        )
    if (folder / ONE_FILE).is_file():
        inside(folder, ONE_FILE)
        return WeightFiles((ONE_FILE,))
    if (folder / INDEX).is_file():
        inside(folder, INDEX)
        listed = listed_in(folder)
        files = tuple(sorted(set(listed.values())))
        for file in files:
            _require_there(folder, file, listed)
        return WeightFiles(files, listed)
    raise _nothing_to_load(folder)


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder. A link may lead to another file of the folder, or to the blobs of the Hub's cache.

    Raises `BadInput` if the name or a link leads out of the folder.
    """
    path, home = PurePosixPath(name), folder.resolve()
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise BadInput(f"{folder} names {name!r} as one of its files, which is outside of the folder", _FETCH_AGAIN)
    # The Hub's cache keeps the files of a commit as links: <repository>/snapshots/<commit>/x -> <repository>/blobs/y.
    cached = [home.parent.parent / "blobs"] if home.parent.name == "snapshots" else []
    target = (folder / name).resolve()
    if not any(target.is_relative_to(place) for place in (home, *cached)):
        raise BadInput(
            f"{folder / name} is a link to {target}, which is outside of the folder",
            "put the file itself into the folder",
        )
    return folder / name


def listed_in(folder: Path) -> dict[str, str]:
    """The file of each tensor as the index of a folder says it. Raises `BadInput` if the index is none."""
    index = folder / INDEX
    try:
        document = read_json(index)
        listed = _WEIGHT_MAP.validate_python(document.get("weight_map"))
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{index} is not a safetensors index: its `weight_map` does not name a file for each tensor", _FETCH_AGAIN
        ) from error
    if not listed or not isinstance(document.get("metadata"), dict):
        raise BadInput(
            f"{index} is not a safetensors index that transformers reads: its `weight_map` or `metadata` is missing",
            _FETCH_AGAIN,
        )
    return listed


def _require_there(folder: Path, file: str, listed: dict[str, str]) -> None:
    if not file.endswith(_SUFFIX):
        raise BadInput(
            f"{folder / INDEX} names {file!r}, which is no safetensors file", "save the model as safetensors"
        )
    path = inside(folder, file)
    if not path.is_file():
        name = next(name for name, place in listed.items() if place == file)
        raise BadInput(f"{path} is missing; {INDEX} says it holds {name}", _FETCH_AGAIN)


def _nothing_to_load(folder: Path) -> BadInput:
    others = sorted(path.name for path in folder.glob(f"*{_SUFFIX}"))
    if others:
        return BadInput(
            f"{folder} holds {others[0]}, which transformers does not load: it looks for {ONE_FILE}, then for {INDEX}",
            f"rename the file to {ONE_FILE} if it is the whole model, or fetch the index",
        )
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if pickles:
        return BadInput(
            f"{folder} holds a pickle checkpoint ({pickles[0]}); loading one can run any code",
            "convert it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder, safe_serialization=True)",
        )
    return BadInput(f"{folder} holds no safetensors file", "point `source` at a complete model folder")
