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
    """The original model in `dtype`, for inference. With another `config`, it has only as many layers as that says."""
    return _loaded(folder, {"": device}, config=config, dtype=DTYPES[dtype])


def load_bundle(folder: Path, device: torch.device) -> Any:
    """A bundle as its consumers load it, through its own modeling code."""
    return _loaded(folder, {"": device}, dtype="auto", trust_remote_code=True)


def load_in_memory(original: Path, bundle: Path, dtype: str, device: torch.device) -> tuple[Any, Any] | None:
    """Original and bundle side by side, or None if memory does not hold both."""
    if sum(_sizes(original, bundle, dtype)) > room_for_weights(device):
        return None
    return load_original(original, dtype, device), load_bundle(bundle, device)


def load_both(original: Path, bundle: Path, dtype: str, device: torch.device, scratch: Path) -> tuple[Any, Any]:
    """Original and bundle side by side. If memory does not hold both, layers of each stay on the disk.

    A layer on the disk is read whenever it runs, which is slow but gives the same numbers.

    Args:
        original: Folder of the original.
        bundle: Folder of the bundle.
        dtype: Data type of the original.
        device: Device that holds both.
        scratch: A folder that this function makes for layers that the source stores in another form than the model,
            such as the experts of a mixture one by one. It must stay as long as the models. The caller removes it.
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
    original_room, bundle_room = (room * size // sum(sizes) for size in sizes)
    with disk_errors_explained(scratch, Original(original).saved_again(DTYPES[dtype]) or None):
        return (
            _partly_on_disk(original, original_room, device, scratch / "original", dtype=DTYPES[dtype]),
            _partly_on_disk(bundle, bundle_room, device, scratch / "bundle", dtype="auto", trust_remote_code=True),
        )


def is_partly_on_disk(model: Any) -> bool:
    """Whether a loaded model reads layers from the disk whenever they run."""
    return "disk" in getattr(model, "hf_device_map", {}).values()


def _sizes(original: Path, bundle: Path, dtype: str) -> tuple[int, int]:
    """Bytes of the weights of original and bundle."""
    return Original(original).bytes(DTYPES[dtype]), sum(file.stat().st_size for file in bundle.glob("*.safetensors"))


def _loaded(
    folder: Path, places: dict[str, torch.device] | str, trust_remote_code: bool = False, **options: Any
) -> Any:
    """A model for inference. `options` go to transformers. Only code of a bundle may run, never that of an original.

    Each weight goes to its place as soon as it is read, so the memory of the host need not hold all of them.
    """
    return AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, device_map=places, trust_remote_code=trust_remote_code, **options
    ).eval()


def _partly_on_disk(folder: Path, room: int, device: torch.device, scratch: Path, **options: Any) -> Any:
    """A model that gets `room` bytes of the memory of a device. `options` go to transformers."""
    place = "cpu" if device.type == "cpu" else device.index or 0
    with disk_errors_as_elsewhere(scratch):
        model = _loaded(folder, "auto", max_memory={place: room}, offload_folder=scratch, **options)
    if model.device.type == "meta":
        raise BadInput(
            f"{room / 1e9:.1f} GB of memory do not hold even the embeddings of {folder}",
            "end other programs, or run where there is more memory",
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. It pads on the left, and has a padding token even if the model has none."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
