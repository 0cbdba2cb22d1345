"""Load the models that a release compares: the original and a bundle, on one device in one dtype."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.errors import BadInput
from taylor_ops.machine.devices import DTYPES, room_for_weights
from taylor_ops.model.original import Original
from taylor_ops.model.shards import disk_errors_as_elsewhere
from taylor_ops.storage.files import disk_errors_explained


def load_original(folder: Path, dtype: str, device: torch.device, config: Any = None) -> Any:
    """The original model in `dtype`, for inference; with another `config` only as many of its layers as that has."""
    return _loaded(folder, {"": device}, config=config, dtype=DTYPES[dtype])


def load_bundle(folder: Path, device: torch.device) -> Any:
    """A bundle as its consumers load it, through its own modeling code."""
    return _loaded(folder, {"": device}, dtype="auto", trust_remote_code=True)


def load_in_memory(original: Path, bundle: Path, dtype: str, device: torch.device) -> tuple[Any, Any] | None:
    """Original and bundle side by side; None where memory does not hold both."""
    if sum(_sizes(original, bundle, dtype)) > room_for_weights(device):
        return None
    return load_original(original, dtype, device), load_bundle(bundle, device)


def load_both(original: Path, bundle: Path, dtype: str, device: torch.device, scratch: Path) -> tuple[Any, Any]:
    """Original and bundle side by side. Where memory does not hold both, layers of each stay on the disk.

    Those are read whenever they are at work: slow, but the same numbers. scratch: a folder that is made for those that
    a source stores in another form than the model has them, as the experts of a mixture one by one. It must stay until
    the models are gone, and is then the caller's to remove.
    """
    loaded = load_in_memory(original, bundle, dtype, device)
    if loaded is not None:
        return loaded
    sizes, room = _sizes(original, bundle, dtype), room_for_weights(device)
    logging.getLogger(__name__).warning(
        "original and bundle (%.1f GB) do not fit into %.1f GB of memory: layers are read from disk as they are needed",
        sum(sizes) / 1e9,
        room / 1e9,
    )
    first, second = (room * size // sum(sizes) for size in sizes)
    with disk_errors_explained(scratch, Original(original).saved_again(DTYPES[dtype]) or None):
        return (
            _partly_on_disk(original, first, device, scratch / "original", dtype=DTYPES[dtype]),
            _partly_on_disk(bundle, second, device, scratch / "bundle", dtype="auto", trust_remote_code=True),
        )


def is_partly_on_disk(model: Any) -> bool:
    """Whether a loaded model reads layers from the disk whenever they are at work."""
    return "disk" in getattr(model, "hf_device_map", {}).values()


def _sizes(original: Path, bundle: Path, dtype: str) -> tuple[int, int]:
    """Bytes of the weights of original and bundle."""
    return Original(original).bytes(DTYPES[dtype]), sum(file.stat().st_size for file in bundle.glob("*.safetensors"))


def _loaded(folder: Path, places: dict[str, torch.device] | str, **how: Any) -> Any:
    """A model for inference, each weight put where it belongs as it is read: memory of the host need not hold them all.

    `how` it is loaded goes to transformers.
    """
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, device_map=places, **how).eval()


def _partly_on_disk(folder: Path, room: int, device: torch.device, scratch: Path, **how: Any) -> Any:
    """A model that gets `room` bytes of the memory of a device; `how` it is loaded goes to transformers."""
    place = "cpu" if device.type == "cpu" else device.index or 0
    with disk_errors_as_elsewhere(scratch):
        model = _loaded(folder, "auto", max_memory={place: room}, offload_folder=scratch, **how)
    if model.device.type == "meta":
        raise BadInput(
            f"{room / 1e9:.1f} GB of memory do not hold even the embeddings of {folder}",
            "end other programs, or run where there is more memory",
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, padding on the left, with a padding token even where the model has none."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
